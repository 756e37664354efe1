"""A morphable-model face as a picture: its albedo under spherical-harmonics light (Yi et al., Sec. 3.1 and 3.3.1).

Colours follow C = albedo * shading(normal), computed at the vertices as in the paper and interpolated on the surface. A detailed
albedo is a texture, multiplied by the interpolated shading.

`IdentityDrawing` draws a person's face in the render box (Yi et al., Sec. 3.3.1): identity, texture and light are the person's,
expression and pose are given. The expression is fitted to the 59 mouth-area landmarks on the person's own neutral face, by any
predictor. The fit is one linear map, computed once:

    beta = argmin |M (B beta - (mouth - neutral mouth))|^2 + ridge |beta / deviation|^2,    M = diag(1, 1, sqrt(depth weight))

A frame costs a product of matrices and a rasterised mesh, and depends on no other frame. Departures from the paper: the camera is
the tracker's weak-perspective head pose in place of a pinhole, and the detailed albedo is merged from several frames
(services/face/fitting).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating, Int32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_SIZE, CROP_SIZE, HeadPose, box_from_frame, crop_from_frame, head_template
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import LIPS_OUTER, MOUTH_AREA, NUM_LIPS, NUM_MOUTH_AREA, STABLE
from services.common.face.sampling import sample_patch
from services.common.geometry.alignment import similarity
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.fragments import Fragments
from services.common.geometry.lighting import shading, vertex_face_table, vertex_normals
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel
from services.common.geometry.rasterise import Backend, UvMap, interpolate, rasterise, sample_texture, uv_map

HOLES: Final = ("mouth_interior",)
"""Regions that close a model's mesh where a face shows no skin. They are neither drawn nor fitted to colours."""
_GREEN: Final = (0, 255, 0)
_SUBPIXEL_BITS: Final = 4
RIDGE_PX2: Final = 0.1
"""Pull of the expression towards rest, squared head-space pixels per squared standard deviation."""
DEPTH_WEIGHT: Final = 0.3
"""Weight of a landmark's depth, which is the tracker's least certain number."""
_MIN_RIGID: Final = 6
_MIN_MOUTH_POINTS: Final = 8
_FIELD: Final = "identity"
_BOX: Final = (BOX_SIZE, BOX_SIZE)
_SHIFT: Final = 4


class FacePicture(NamedTuple):
    """Drawn face.

    Attributes:
        picture: float32 [H, W, 3], RGB 0..255; background 0.
        covered: bool [H, W].
    """

    picture: Float32
    covered: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FaceMesh:
    """Drawn surface of a model.

    Attributes:
        triangles: int32 [F', 3], without the holes.
        corners: int32 [F', 3], rows of the model's `uv` for the triangles; empty where the model has no `uv`.
        table: faces around each vertex of the whole mesh.
    """

    model: MorphableModel
    triangles: Int32
    corners: Int32
    table: Int32

    @classmethod
    def of(cls, model: MorphableModel, without: tuple[str, ...] = HOLES) -> FaceMesh:
        """Return the mesh of a model without the named regions. Regions that the model lacks are ignored."""
        keep = np.ones(len(model.triangles), bool)
        for region in without:
            keep[model.regions.get(region, np.zeros(0, np.int32))] = False
        corners = model.uv_triangles[keep] if len(model.uv) else np.zeros((0, 3), np.int32)
        return cls(model, model.triangles[keep], corners, vertex_face_table(model.triangles, model.num_vertices))

    def camera_normals(self, shape: Floating, camera: WeakPerspective) -> Floating:
        """Return unit normals [..., V, 3] in camera axes of shapes [..., V, 3]."""
        normals: Floating = vertex_normals(shape, self.model.triangles, self.table) @ np.asarray(camera.rotation).mT
        return normals

    def layout(self, size: int, backend: Backend = "numba") -> UvMap:
        """Return the unwrapped surface, size x size texels, by a rasteriser. The last result is cached."""
        kept: dict[tuple[int, Backend], UvMap] = self._layouts
        if (size, backend) not in kept:
            kept.clear()
            kept[size, backend] = uv_map(self.model.uv, self.corners, self.triangles, size, size, backend=backend)
        return kept[size, backend]

    @cached_property
    def _layouts(self) -> dict[tuple[int, Backend], UvMap]:
        return {}


def draw_face(
    mesh: FaceMesh,
    shape: Floating,
    camera: WeakPerspective,
    albedo: Floating,
    light: Floating,
    size: tuple[int, int],
    *,
    backend: Backend = "numba",
) -> FacePicture:
    """Draw a face with an albedo per vertex (the low-frequency albedo of Yi et al.).

    Args:
        mesh: drawn surface of the model.
        shape: [V, 3], head space.
        camera: camera of one frame, without leading axes.
        albedo: [V, 3], RGB 0..1.
        light: [9, 3], camera axes.
        size: height and width of the picture.
        backend: rasteriser.

    Raises:
        BackendUnavailableError: the rasteriser is not installed.
    """
    colours = albedo * shading(mesh.camera_normals(shape, camera), light)
    return _drawn(mesh, camera.project(shape), 255.0 * np.clip(colours, 0.0, 1.0), size, backend)


def draw_detailed_face(
    mesh: FaceMesh,
    shape: Floating,
    camera: WeakPerspective,
    texture: npt.NDArray[Any],
    light: Floating,
    size: tuple[int, int],
    *,
    backend: Backend = "numba",
) -> FacePicture:
    """Draw a face with a texture of albedo (the detailed albedo of Yi et al.): float [S, S, 3], 0..255.

    Other arguments and errors: see `draw_face`.
    """
    shaded = np.clip(shading(mesh.camera_normals(shape, camera), light), 0.0, None)
    fragments = _fragments(mesh, camera.project(shape), size, backend)
    covered = fragments.covered[0]
    uv = interpolate(fragments, mesh.model.uv[None], mesh.corners)[0]
    brightness = interpolate(fragments, shaded[None], mesh.triangles)[0]
    picture = np.zeros((*size, 3), np.float32)
    picture[covered] = np.clip(sample_texture(texture, uv[covered]) * brightness[covered], 0.0, 255.0)
    return FacePicture(picture, covered)


def _drawn(mesh: FaceMesh, points: Floating, colours: Floating, size: tuple[int, int], backend: Backend) -> FacePicture:
    fragments = _fragments(mesh, points, size, backend)
    return FacePicture(interpolate(fragments, colours[None], mesh.triangles)[0], fragments.covered[0])


def _fragments(mesh: FaceMesh, points: Floating, size: tuple[int, int], backend: Backend) -> Fragments:
    placed = points[None]
    return rasterise(placed[..., :2], placed[..., 2], mesh.triangles, *size, cull="back", backend=backend)


def camera_in_crop(pose: HeadPose, affine: npt.NDArray[np.float64]) -> WeakPerspective:
    """Return the camera of one frame for a picture that a similarity [2, 3] made of the frame."""
    size = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    turn = np.eye(3)
    turn[:2, :2] = affine[:, :2] / size
    translation = affine[:, :2] @ pose.translation[:2] + affine[:, 2]
    return WeakPerspective(np.float64(pose.scale * size), turn @ pose.rotation, np.array([*translation, 0.0]))


def fitting_row(
    picture: UInt8, pose: HeadPose, expression: npt.NDArray[np.floating], identity: FaceIdentity, mesh: FaceMesh
) -> UInt8:
    """Return five crops side by side, uint8 [256, 1280, 3]: the face, the mesh on the face, the face drawn into the picture with
    the low-frequency and with the detailed albedo, and the last face alone.

    Args:
        picture: uint8 [H, W, 3], RGB.
        pose: head pose of the fit.
        expression: float [E].
        identity: identity with albedo and texture.
        mesh: drawn surface of the identity's model.
    """
    affine = crop_from_frame(pose)
    crop = sample_patch(picture, affine, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)
    camera = camera_in_crop(pose, affine)
    shape = mesh.model.shape(identity.identity, np.asarray(expression, np.float32), identity.offset).astype(np.float64)
    size = (CROP_SIZE, CROP_SIZE)
    plain = draw_face(mesh, shape, camera, mesh.model.albedo(identity.albedo), identity.light, size)
    detailed = draw_detailed_face(mesh, shape, camera, identity.texture, identity.light, size)
    alone = np.rint(detailed.picture).astype(np.uint8)
    pictures = [crop, _with_mesh(crop, camera.project(shape), mesh), _laid_over(crop, plain), _laid_over(crop, detailed), alone]
    return np.concatenate(pictures, axis=1)


def _laid_over(crop: UInt8, face: FacePicture) -> UInt8:
    result = crop.copy()
    result[face.covered] = np.rint(face.picture[face.covered]).astype(np.uint8)
    return result


def _with_mesh(crop: UInt8, points: npt.NDArray[np.floating], mesh: FaceMesh) -> UInt8:
    large = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    corners = np.rint((2.0 * points[:, :2] + 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(large, list(corners[mesh.triangles]), True, _GREEN, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(cv2.resize(large, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA), np.uint8)


class ExpressionFit:
    """Neutral face and expression fit of one person. Immutable after construction: threads may share the object."""

    def __init__(self, identity: FaceIdentity, model: MorphableModel) -> None:
        """Prepare the maps.

        Args:
            identity: identity of FitIdentity.
            model: the morphable model of the identity.

        Raises:
            InvalidRequestError: the model has too few mouth landmarks for an expression.
        """
        points, self._rows = _mouth_points(model)
        self._neutral = _in_head_space(np.asarray(identity.neutral(model), np.float64), model)
        self._neutral_mouth = points.of(self._neutral)
        metric = np.sqrt(np.array([1.0, 1.0, DEPTH_WEIGHT]))[:, None]
        basis = points.of_basis(model.expression_basis).astype(np.float64)
        scaled = (basis * model.expression_deviation * metric).reshape(-1, model.num_expression)
        normal = scaled.T @ scaled + RIDGE_PX2 * np.eye(model.num_expression)
        solve = np.linalg.solve(normal, scaled.T).reshape(model.num_expression, len(points), 3)
        self._fit = (solve * metric[:, 0] * np.asarray(model.expression_deviation, np.float64)[:, None, None]).reshape(
            model.num_expression, -1
        )
        self._basis = model.expression_basis.astype(np.float64).reshape(-1, model.num_expression)

    @property
    def neutral(self) -> Float64:
        """Return the person's face without expression in head space, float64 [V, 3]."""
        return self._neutral

    def expression_of(self, mouth: Floating) -> Float32:
        """Return expression coefficients, float32 [E], that bring the person's mouth to the given landmarks.

        Args:
            mouth: float [59, 3], mouth-area landmarks in head space.

        Raises:
            InvalidRequestError: the shape is another one, or a value is not finite.
        """
        points = np.asarray(mouth, np.float64)
        if points.shape != (NUM_MOUTH_AREA, 3) or not np.isfinite(points).all():
            raise InvalidRequestError("mouth landmarks must be [59, 3] and finite", field="mouth_landmarks")
        return np.asarray(self._fit @ (points[self._rows] - self._neutral_mouth).ravel(), np.float32)

    def shape_of(self, expression: Floating) -> Float64:
        """Return the person's face in head space, float64 [V, 3], for coefficients [E]."""
        return self._neutral + (self._basis @ np.asarray(expression, np.float64)).reshape(-1, 3)


def _mouth_points(model: MorphableModel) -> tuple[LandmarkSet, npt.NDArray[np.intp]]:
    """Return the model's points that are mouth-area landmarks, and their rows among the 59."""
    landmarks = model.landmark_set("mediapipe")
    row_of = {number: row for row, number in enumerate(MOUTH_AREA)}
    chosen = [index for index, number in enumerate(landmarks.mediapipe) if int(number) in row_of]
    if len(chosen) < _MIN_MOUTH_POINTS:
        raise InvalidRequestError(
            f"the morphable model {model.name!r} has {len(chosen)} landmarks of the mouth; {_MIN_MOUTH_POINTS} are needed",
            field=_FIELD,
        )
    return landmarks.select(chosen), np.array([row_of[int(landmarks.mediapipe[index])] for index in chosen], np.intp)


def _in_head_space(neutral: Float64, model: MorphableModel) -> Float64:
    """Return the neutral face, turned, placed and sized like the mean head on the rigid points, as head poses require.

    A face measured on footage hardly moves. A face inferred from a still picture moves by a few tenths of a pixel.
    """
    landmarks = model.landmark_set("mediapipe")
    rigid = landmarks.select(np.isin(landmarks.mediapipe, STABLE))
    if len(rigid) < _MIN_RIGID:
        return neutral
    return np.asarray(similarity(rigid.of(neutral), head_template()[rigid.mediapipe].astype(np.float64)).apply(neutral), np.float64)


class IdentityDrawing:
    """Draws one person. Immutable after construction: threads may share the object.

    Pictures depend only on the frame. The first picture of a process waits about a second for compiled kernels.
    """

    def __init__(self, identity: FaceIdentity, model: MorphableModel, *, backend: Backend = "numba") -> None:
        """Prepare the maps.

        Args:
            identity: identity of FitIdentity.
            backend: rasteriser.

        Raises:
            InvalidRequestError: the model has no albedo, or too few mouth landmarks for an expression.
        """
        if model.albedo_mean is None:
            raise InvalidRequestError(f"the morphable model {model.name!r} has no albedo: its faces cannot be drawn", field=_FIELD)
        self._identity, self._backend = identity, backend
        self._face = ExpressionFit(identity, model)
        self._mesh = FaceMesh.of(model)
        self._light = identity.light.astype(np.float64)
        self._albedo = np.clip(np.asarray(model.albedo(identity.albedo), np.float64), 0.0, 1.0)
        self._texture = identity.texture.astype(np.float32)

    @property
    def identity(self) -> FaceIdentity:
        """The drawn person's identity."""
        return self._identity

    @property
    def mesh(self) -> FaceMesh:
        """Drawn surface."""
        return self._mesh

    @property
    def has_detail(self) -> bool:
        """Whether the identity holds a detailed albedo."""
        return self._texture.size > 0

    def expression_of(self, mouth: Floating) -> Float32:
        """Return expression coefficients, float32 [E], see ExpressionFit.expression_of."""
        return self._face.expression_of(mouth)

    def shape_of(self, expression: Floating) -> Float64:
        """Return the person's face in head space, float64 [V, 3], for coefficients [E]."""
        return self._face.shape_of(expression)

    def draw(self, mouth: Floating, pose: HeadPose, *, detailed: bool) -> npt.NDArray[np.uint8]:
        """Return the face in the render box of a head pose: uint8 RGB [160, 160, 3].

        Pixels that the face does not cover, such as the open mouth, are 0, 0, 0. Covered pixels are never 0, 0, 0.

        Args:
            mouth: float [59, 3], target mouth-area landmarks in head space.
            pose: head pose in the frame; scale, roll and translation cancel in the box.
            detailed: draw the detailed albedo; False: the low-frequency albedo.

        Raises:
            InvalidRequestError: as `expression_of`, or the identity has no detailed albedo.
            BackendUnavailableError: the rasteriser is not installed.
        """
        if detailed and not self.has_detail:
            raise InvalidRequestError(
                "this identity has no detailed albedo: its morphable model has no texture coordinates", field=_FIELD
            )
        shape = self.shape_of(self.expression_of(mouth))
        camera = camera_in_crop(pose, box_from_frame(pose))
        if detailed:
            face = draw_detailed_face(self._mesh, shape, camera, self._texture, self._light, _BOX, backend=self._backend)
        else:
            face = draw_face(self._mesh, shape, camera, self._albedo, self._light, _BOX, backend=self._backend)
        picture = np.rint(face.picture).astype(np.uint8)
        picture[face.covered & ~picture.any(axis=-1)] = 1
        return picture


def lip_pictures(box_landmarks: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return the target lips and the target inside of the mouth, filled: uint8 [size, size, 2], 255 inside.

    Args:
        box_landmarks: float32 [59, 2], box pixels.
        size: side of the render box, pixels.
    """
    points = np.rint(np.clip(box_landmarks[:NUM_LIPS], -size, 2 * size) * (1 << _SHIFT)).astype(np.int32)
    pictures = [np.zeros((size, size), np.uint8) for _ in range(2)]
    for picture, polygon in zip(pictures, (points[: len(LIPS_OUTER)], points[len(LIPS_OUTER) :]), strict=True):
        cv2.fillPoly(picture, [polygon], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return np.dstack(pictures)
