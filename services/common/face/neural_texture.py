"""A person's neural texture: learned features on the lower face, sampled where a frame shows the face.

Deferred neural rendering (Thies et al. 2019) as in Saunders and Namboodiri, Sec. 3.3: a mesh is rasterised into texture
coordinates, and the texture's features at these coordinates are the input of an image-to-image network.

The texture holds the lower face, magnified: rows 0..207 show the model's own layout from the nose down, and rows 208..255 show
the inside of the mouth, upper teeth at the left and lower teeth at the right. Departures from the paper: the camera is weakly
perspective, not a pinhole; the model is linear, not FLAME; and the mouth has an inside with texels of its own.

Coordinates are those of services/common/geometry/rasterise.py: u right, v down, 0..1 over the texture, texel (row, column)
centred at ((column + 0.5) / 256, (row + 0.5) / 256). `sample` equals PyTorch's

    grid_sample(texture[None], 2 * uv[None] - 1, mode="bilinear", padding_mode="border", align_corners=False)

with texture [16, 256, 256] in 0..1, and the result set to 0 where uv is negative.

The inside of the mouth is a film between the lips, textured by two rigid patches: upper teeth and lower teeth. The film closes
the hole between the inner lips. The film's upper half shows a patch that is fixed to the skull, the lower half shows a patch that
is fixed to the jaw. The texture coordinates of the film's points are their positions in head space; in the lower half, the shift of
the chin is subtracted. So an opening mouth uncovers teeth and does not stretch them. The film hangs at the lips. Teeth lie a few
pixels deeper, so a turned head shifts teeth in the patch by this depth times the tangent of the turn.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, Float64, Floating, Int32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_SIZE, HeadPose, box_from_frame
from services.common.face.drawing import ExpressionFit, FaceMesh, camera_in_crop
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import LIPS_INNER
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel
from services.common.geometry.rasterise import Backend, interpolate, rasterise
from services.common.store.tensor_bytes import NamedArrays

_CHIN: Final = (148, 152, 377)
_COLUMNS: Final = len(LIPS_INNER) // 2 + 1
_UPPER: Final = np.arange(_COLUMNS)
_LOWER: Final = -np.arange(_COLUMNS) % len(LIPS_INNER)
"""Facing points of the ring of inner-lip points, from corner to corner."""

HALF_WIDTH_PX: Final = 40.0
"""Half of a patch's width, head-space pixels. Inner lips are about 57 wide."""
HEIGHT_PX: Final = 30.0
"""Height of a patch, head-space pixels."""
_REACH: Final = (10.0, 16.0)
"""How far a patch reaches behind its own lip and from the lip into the mouth, head-space pixels."""
TEXTURE_SIZE: Final = 256
"""Side of a neural texture, texels."""
NUM_CHANNELS: Final = 16
"""Features of a texel. The first three resemble RGB."""
TEXTURE_SHAPE: Final = (TEXTURE_SIZE, TEXTURE_SIZE, NUM_CHANNELS)
ARRAY_NAME: Final = "neural_texture"
"""Name of the texture among the arrays of an actor's artefact."""
ACTOR_FORMAT: Final = "dubstage.render_actor/1"
"""Metadata `format` of the artefact that a renderer's personalisation stores."""
FACE_ROWS: Final = 208
"""Rows of the texture that show the face. The rows below show the inside of the mouth."""
_TOP_PX: Final = -60.0
"""Upper end of the textured face on the mean head, head-space pixels. Masks of the lower face begin at about -41. A nod brings the
tip of the nose into the mask."""
_MARGIN: Final = 1.0 / TEXTURE_SIZE
"""Distance of the surface from the border of its part of the texture: bilinear sampling never mixes two parts."""
_NO_FACE: Final = -1.0


def _strip(first: int) -> Int32:
    """Return the triangles of a band between two rows of points, int32 [2 * (columns - 1), 3], counter-clockwise from outside."""
    above = first + np.arange(_COLUMNS - 1)
    below = above + _COLUMNS
    return np.concatenate([np.stack([above, below, below + 1], 1), np.stack([above, below + 1, above + 1], 1)]).astype(np.int32)


class MouthFilm:
    """Film between a person's inner lips. Immutable.

    Attributes:
        triangles: int32 [40, 3], rows of `points_of`: 20 triangles of the upper half, then 20 of the lower half.
    """

    triangles: Final = np.concatenate([_strip(0), _strip(2 * _COLUMNS)])

    def __init__(self, model: MorphableModel, neutral: Float64) -> None:
        """Find the inner lips and the chin.

        Args:
            neutral: float64 [V, 3], the person's neutral face in head space.

        Raises:
            InvalidRequestError: the model lacks a landmark of the inner lips or of the chin.
        """
        self._ring, self._chin = _landmarks(model, LIPS_INNER), _landmarks(model, _CHIN)
        self._origin = self._ring.of(neutral)[:, :2].mean(axis=0)
        self._chin_at_rest = self._chin.of(neutral).mean(axis=0)

    def points_of(self, shape: Float64) -> tuple[Float64, Float64]:
        """Return the film of a face shape.

        Args:
            shape: float64 [V, 3], head space.

        Returns:
            Points of the film, float64 [44, 3], head space: upper lip, middle, middle again, lower lip, each from the subject's
            right corner to the left; and coordinates of the points in their patch, float64 [44, 2], 0..1. The first 22 points
            belong to the upper patch, the others to the lower patch.
        """
        ring = self._ring.of(shape)
        upper, lower = ring[_UPPER], ring[_LOWER]
        middle = 0.5 * (upper + lower)
        points = np.concatenate([upper, middle, middle, lower])
        flat = points[:, :2] - self._origin
        flat[2 * _COLUMNS :] -= (self._chin.of(shape).mean(axis=0) - self._chin_at_rest)[:2]
        top = np.repeat([-_REACH[0], -_REACH[1]], 2 * _COLUMNS)
        coordinates = np.stack([(flat[:, 0] + HALF_WIDTH_PX) / (2.0 * HALF_WIDTH_PX), (flat[:, 1] - top) / HEIGHT_PX], axis=1)
        return points, np.clip(coordinates, 0.0, 1.0)


def _landmarks(model: MorphableModel, numbers: tuple[int, ...]) -> LandmarkSet:
    landmarks = model.landmark_set("mediapipe")
    row_of = {int(number): row for row, number in enumerate(landmarks.mediapipe)}
    missing = [number for number in numbers if number not in row_of]
    if missing:
        raise InvalidRequestError(
            f"the morphable model {model.name!r} has no points for MediaPipe's landmarks {missing}: its mouth cannot be closed",
            field="identity",
        )
    return landmarks.select([row_of[number] for number in numbers])


def sample(texture: UInt8, uv: Float32) -> Float32:
    """Return a texture's features at every pixel, float32 [H, W, C] in 0..1: bilinear, and 0 where uv is negative.

    Args:
        texture: uint8 [S, S, C], 0..255 for 0..1.
        uv: float32 [H, W, 2], texture coordinates in 0..1, negative where there is no face.
    """
    features = np.empty((*uv.shape[:2], texture.shape[2]), np.float32)
    flat = np.ascontiguousarray(uv, np.float32).reshape(-1, 2)
    # numba takes .2 s to import, and most processes sample no texture.
    from services.common.geometry.kernels import sample_pixels

    sample_pixels(np.ascontiguousarray(texture), flat, features.reshape(len(flat), -1))
    return features


def neural_texture_from_arrays(named: NamedArrays, field: str = "texture") -> UInt8:
    """Return the neural texture of an actor's artefact, uint8 [256, 256, 16].

    Args:
        named: the artefact that a personalisation stored.
        field: field of the request that named the artefact.

    Raises:
        InvalidRequestError: the artefact is no actor, or the actor has no neural texture, or the texture is damaged.
    """
    form = named.metadata.get("format")
    if form != ACTOR_FORMAT:
        raise InvalidRequestError(f"{field}: not a renderer's actor: format {form!r}, not {ACTOR_FORMAT!r}", field=field)
    texture = named.arrays.get(ARRAY_NAME)
    if texture is None:
        raise InvalidRequestError(
            f"{field}: this actor has no neural texture: personalise a renderer that learns neural textures", field=field
        )
    if texture.shape != TEXTURE_SHAPE or texture.dtype != np.uint8:
        raise InvalidRequestError(
            f"{field}: the neural texture is damaged: {texture.dtype} {list(texture.shape)}, not uint8 {list(TEXTURE_SHAPE)}: "
            "personalise the actor again",
            field=field,
        )
    return np.asarray(texture)


class NeuralSurface:
    """One person's lower face with the inside of the mouth, rasterised into texture coordinates.

    Immutable after construction: threads may share the object. The layout of the texture depends on the model alone, not on the
    person. The first picture of a process waits about a second for compiled kernels.
    """

    def __init__(self, identity: FaceIdentity, model: MorphableModel, *, backend: Backend = "numba") -> None:
        """Prepare the mesh. Arguments: see services.common.face.drawing.IdentityDrawing.

        Raises:
            InvalidRequestError: the model has no texture coordinates, or lacks landmarks of the mouth or the chin.
        """
        if not len(model.uv):
            raise InvalidRequestError(
                f"the morphable model {model.name!r} has no texture coordinates: it cannot hold a neural texture", field="identity"
            )
        self._backend: Backend = backend
        self._face = ExpressionFit(identity, model)
        self._film = MouthFilm(model, self._face.neutral)
        mesh = FaceMesh.of(model)
        lower = (model.mean_shape[mesh.triangles, 1] >= _TOP_PX).any(axis=1)
        self._triangles = np.concatenate([mesh.triangles, self._film.triangles + model.num_vertices])
        self._corners = np.concatenate([mesh.corners, self._film.triangles + len(model.uv)])
        # Triangles above the lower face have no texels. They are drawn because they hide what is behind them.
        self._textured = np.concatenate([lower, np.ones(len(self._film.triangles), bool)])
        # float64 [U, 2], texture coordinates of the model's texture points. Triangles outside the texture have any.
        self._layout = _magnified(model.uv.astype(np.float64), mesh.corners[lower])

    def expression_of(self, mouth: Floating) -> Float32:
        """Return expression coefficients, float32 [E], see ExpressionFit.expression_of."""
        return self._face.expression_of(mouth)

    def uv_of(self, expression: Floating, pose: HeadPose) -> Float32:
        """Return texture coordinates at every pixel of the render box, float32 [160, 160, 2]: 0..1, or -1 where no face is.

        Args:
            expression: float [E], coefficients of the identity's model.
            pose: head pose in the frame; scale, roll and translation cancel in the box.

        Raises:
            BackendUnavailableError: the rasteriser is not installed.
        """
        shape = self._face.shape_of(expression)
        film, coordinates = self._film.points_of(shape)
        camera = camera_in_crop(pose, box_from_frame(pose))
        points = np.asarray(camera.project(np.concatenate([shape, film])), np.float64)[None]
        pixels, depth = points[..., :2], points[..., 2]
        fragments = rasterise(pixels, depth, self._triangles, BOX_SIZE, BOX_SIZE, cull="back", backend=self._backend)
        layout = np.concatenate([self._layout, _in_texture(coordinates)])
        uv: Float32 = interpolate(fragments, layout[None], self._corners)[0]
        uv[~(fragments.covered[0] & self._textured[fragments.triangle_index[0]])] = _NO_FACE
        return uv


def _magnified(uv: Float64, corners: Int32) -> Float64:
    """Return a model's texture coordinates [U, 2], stretched so that the given triangles fill the face's part of the texture."""
    used = uv[corners.ravel()]
    low, high = used.min(axis=0), used.max(axis=0)
    room = np.array([1.0, FACE_ROWS / TEXTURE_SIZE])
    stretched = _MARGIN + (uv - low) / np.maximum(high - low, 1e-6) * (room - 2.0 * _MARGIN)
    return np.asarray(np.clip(stretched, 0.0, 1.0))


def _in_texture(coordinates: Float64) -> Float64:
    """Return coordinates in the film's patches [44, 2], 0..1, as coordinates of the texture: upper patch left, lower one right."""
    left = np.repeat([0.0, 0.5], len(coordinates) // 2)
    top = FACE_ROWS / TEXTURE_SIZE
    size = np.array([0.5, 1.0 - top]) - 2.0 * _MARGIN
    return np.stack([left, np.full(len(coordinates), top)], axis=1) + _MARGIN + coordinates * size
