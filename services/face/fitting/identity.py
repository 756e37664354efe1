"""Fit of one person's shape, albedo, light and texture to many frames, or to one still picture (FitIdentity).

Textures of a face: unwrapped from frames with fitted meshes, merged over frames, divided by the shading to an albedo.

A frame gives the colour of a texel if the surface point is visible: inside the picture, turned to the camera, not behind another
part of the face. The weight is the number of frame pixels that the texel covers, so a cheek comes mostly from frames that face
the cheek. The merged colour is the weighted median over frames: a mean would blur tracking errors of a pixel and would keep
highlights. services/common/geometry/rasterise.py defines layout and direction of texture coordinates.

The source of the detailed albedo is Yi et al., Sec. 3.3.1. The paper assigns a colour from one frame to each vertex. This module
fills a texture, so that a mesh of few vertices keeps the skin's detail, and takes the weighted median of the best frames, which
leaves out highlights and blur of single frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, Floating, UInt8
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.crops import MAX_HEAD_PX
from services.common.face.drawing import FaceMesh
from services.common.face.identity import FaceIdentity
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.fragments import DEPTH_TOLERANCE, not_behind
from services.common.geometry.lighting import ambient, shading
from services.common.geometry.rasterise import Backend, UvMap, rasterise, sample_picture
from services.common.geometry.rotations import geodesic_angle
from services.face.fitting.frames import HeldFrames
from services.face.fitting.model import ModelLandmarks, surface_of
from services.face.fitting.person import ClipFit, fit_clip
from services.face.fitting.photometric import PhotometricFit, PhotometricProblem
from services.face.fitting.three_stage import fit_shared_colours
from services.face.types import TrackedFace

_LEAST_WEIGHT: Final = 0.02
"""Least weight, frame pixels per texel: below this value a slanted surface shows only the blur of the outline."""
TEXTURE_SIZE: Final = 256
_MOST_FRAMES: Final = 7
_DEGREES_A_PIXEL: Final = 4.0
"""Rotation of the head, degrees, that counts as much as one crop pixel of expression."""
_DARKEST: Final = 0.15
KEY_FRAMES: Final = 12
"""Number of frames whose colours are fitted."""
_NO_FACE: Final = "frame.face.landmarks: no face fits to the landmarks of these frames: send them as Track answered them"


class Texture(NamedTuple):
    """Colours of the surface, and how well frames show each texel.

    Attributes:
        colours: float32 [H, W, 3], 0..255; 0 where weight is 0.
        weight: float32 [H, W], frame pixels per texel; 0: not seen.
    """

    colours: Float32
    weight: Float32


def unwrap(frame: npt.NDArray[np.uint8], image_points: Floating, layout: UvMap, *, backend: Backend = "numba") -> Texture:
    """Return the texture that one frame shows.

    Args:
        frame: uint8 [h, w, 3], RGB.
        image_points: [V, 3], the mesh's vertices projected by a camera: pixels of the frame, and depth.
        layout: `uv_map` of the mesh.
        backend: rasteriser.
    """
    points = np.asarray(image_points, dtype=np.float64)
    pixels, depth = points[:, :2], points[:, 2]
    at_texel = layout.positions(points[None])[0]
    covered = layout.fragments.covered[0]
    position, texel_depth = at_texel[..., :2].astype(np.float64), at_texel[..., 2]
    buffer = rasterise(pixels[None], depth[None], layout.triangles, *frame.shape[:2], backend=backend).depth[0]
    seen = covered & (position >= 0.0).all(-1) & (position[..., 0] <= frame.shape[1] - 1) & (position[..., 1] <= frame.shape[0] - 1)
    slack = DEPTH_TOLERANCE * float(np.ptp(depth))
    seen[seen] = not_behind(buffer, position[seen], texel_depth[seen], slack)
    weight = np.where(seen, _pixels_a_texel(pixels, layout)[layout.fragments.triangle_index[0]], 0.0)
    weight[weight < _LEAST_WEIGHT] = 0.0
    colours = np.zeros((*layout.size, 3), np.float32)
    colours[weight > 0.0] = sample_picture(frame, position[weight > 0.0])
    return Texture(colours, weight.astype(np.float32))


def merge(textures: Sequence[Texture]) -> Texture:
    """Return the weighted median over frames for each channel. The weight of a texel is the largest weight over frames.

    The merge takes 16 bytes per texel, channel and frame. Some dozens of frames spread over a clip are as good as all frames.

    Args:
        textures: at least one texture, all of equal size.

    Raises:
        ValueError: `textures` is empty.
    """
    if not textures:
        raise ValueError("there is no texture to merge")
    colours = np.stack([texture.colours for texture in textures])
    weights = np.stack([texture.weight for texture in textures])
    order = np.argsort(colours, axis=0, kind="stable")
    ordered = np.take_along_axis(np.broadcast_to(weights[..., None], colours.shape), order, axis=0)
    # Take the first colour at which half of the weight is reached. A colour of weight zero is never the first.
    reached = np.cumsum(ordered, axis=0, dtype=np.float64)
    middle = np.argmax((reached >= 0.5 * reached[-1]) & (ordered > 0.0), axis=0)
    merged = np.take_along_axis(np.take_along_axis(colours, order, axis=0), middle[None], axis=0)[0]
    best = weights.max(0)
    return Texture(np.where(best[..., None] > 0.0, merged, np.float32(0.0)), best)


def fill(texture: Texture) -> Float32:
    """Return colours for all texels, float32 [H, W, 3], 0..255. Unseen texels take colours from seen texels around them.

    The picture is halved and doubled again (pull and push: Gortler et al., The Lumigraph, 1996, section 3.4). If no texel was
    seen, all colours are 0.
    """
    filled = (texture.weight > 0.0)[..., None]
    if filled.all() or not filled.any():
        return np.where(filled, texture.colours, np.float32(0.0))
    height, width = texture.weight.shape
    padded = ((0, height % 2), (0, width % 2), (0, 0))
    count = np.pad(filled.astype(np.float32), padded)
    colours = np.pad(np.where(filled, texture.colours, 0.0), padded)
    cells = (count.shape[0] // 2, 2, count.shape[1] // 2, 2, -1)
    seen = count.reshape(cells).sum((1, 3))
    half = colours.reshape(cells).sum((1, 3)) / np.maximum(seen, 1.0)
    coarse = fill(Texture(half.astype(np.float32), seen[..., 0].astype(np.float32)))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    finer = sample_picture(coarse, np.stack([(columns - 0.5) / 2.0, (rows - 0.5) / 2.0], -1))
    return np.where(filled, texture.colours, finer)


def _pixels_a_texel(pixels: Floating, layout: UvMap) -> npt.NDArray[np.float64]:
    """Return frame pixels per texel for each triangle, [F]; negative for triangles that cull="back" leaves out."""
    height, width = layout.size
    on_screen = _twice_area(np.asarray(pixels, dtype=np.float64)[layout.triangles])
    in_texture = np.abs(_twice_area(np.asarray(layout.uv, dtype=np.float64)[layout.corners] * [width, height]))
    return np.divide(-on_screen, in_texture, out=np.zeros_like(on_screen), where=in_texture > 0.0)


def _twice_area(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])


class DetailedAlbedo(NamedTuple):
    """Albedo texture. Attributes: texture uint8 [S, S, 3], 0..255 for albedo 0..1; seen uint8 [S, S], 0 for texels filled in."""

    texture: UInt8
    seen: UInt8


def best_frames(moved: Float64, rotation: Float64) -> npt.NDArray[np.intp]:
    """Return the rows of the most neutral, least turned frames, best first, at most seven.

    Args:
        moved: [T, N, 3], movement of N points of the mesh by the expression, crop pixels. Its root mean square counts.
        rotation: [T, 3, 3].
    """
    displacement = np.sqrt((moved**2).sum(axis=2).mean(axis=1))
    turn = np.degrees(geodesic_angle(rotation, np.broadcast_to(np.eye(3), rotation.shape)))
    return np.argsort(displacement + turn / _DEGREES_A_PIXEL, kind="stable")[:_MOST_FRAMES]


def detailed_albedo(
    mesh: FaceMesh, shapes: Float64, camera: WeakPerspective, light: Float64, crops: UInt8, *, backend: Backend = "numba"
) -> DetailedAlbedo:
    """Return the albedo texture that the frames show.

    Args:
        mesh: mesh of a model with texture coordinates.
        shapes: [T, V, 3], head space, T >= 1.
        camera: T cameras, crop pixels.
        light: [T, 9, 3], camera axes.
        crops: uint8 [T, 256, 256, 3].
        backend: rasteriser.
    """
    layout = mesh.layout(TEXTURE_SIZE, backend)
    textures = []
    for t, shape in enumerate(shapes):
        posed = WeakPerspective(camera.scale[t], camera.rotation[t], camera.translation[t])
        seen = unwrap(crops[t], posed.project(shape), layout, backend=backend)
        shade = np.maximum(shading(mesh.camera_normals(shape, posed), light[t]), _DARKEST)
        textures.append(Texture(seen.colours / np.maximum(layout.positions(shade[None])[0], _DARKEST), seen.weight))
    merged = merge(textures)
    return DetailedAlbedo(
        np.clip(np.rint(fill(merged)), 0, 255).astype(np.uint8), np.where(merged.weight > 0.0, 255, 0).astype(np.uint8)
    )


class IdentityFitter:
    """Fitter of one person. Takes the frames of one face in order and fits at the end, to the frames that HeldFrames keeps."""

    def __init__(self, face: ModelLandmarks, *, three_stage: bool = False, backend: Backend = "numba") -> None:
        """Begin a person.

        Args:
            face: the model's landmarks.
            three_stage: fit light and albedo by stage 2 of the three-stage fit; False: by Gauss-Newton steps (photometric.py).
            backend: rasteriser.
        """
        self._face, self._three_stage, self._backend = face, three_stage, backend
        self._held = HeldFrames()

    def push(self, picture: UInt8, face: TrackedFace) -> None:
        """Take a frame, uint8 RGB [H, W, 3]. A frame that cannot be used (see `reason`) is skipped."""
        self._held.push(picture, face)

    def finish(self, check_call: Callable[[], None] = lambda: None) -> FaceIdentity:
        """Fit the person to the held frames.

        Args:
            check_call: called between the steps. An exception from the call stops the fit.

        Raises:
            NoUsableFootageError: no frame could be used.
            InvalidRequestError: no face fits to the frames' landmarks.
        """
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the numbers are checked below
                person = self._fitted(check_call)
        except np.linalg.LinAlgError:
            raise InvalidRequestError(_NO_FACE, field="frame.face.landmarks") from None
        numbers = (person.identity, person.offset, person.albedo, person.light, [person.landmark_error, person.photometric_error])
        if not all((np.abs(part) <= MAX_HEAD_PX).all() for part in numbers):
            raise InvalidRequestError(_NO_FACE, field="frame.face.landmarks")
        return person

    def _fitted(self, check_call: Callable[[], None]) -> FaceIdentity:
        frames = self._held.frames
        if not frames:
            raise NoUsableFootageError(
                f"none of {self._held.offered} frames shows a face that can be fitted: turned to the camera, uncovered, large "
                "enough, whole in the picture",
                subject="frame",
            )
        landmarks, crops = (np.stack(parts) for parts in zip(*frames, strict=True))
        model = self._face.model
        check_call()
        clip = fit_clip(self._face, landmarks)
        check_call()
        if model.albedo_mean is None:
            empty = DetailedAlbedo(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.uint8))
            return self._identity(clip.person.identity, clip, np.zeros(0, np.float32), ambient(), empty, 0.0)
        if self._three_stage:
            measured = self._face.measured(landmarks)
            rows, colours = fit_shared_colours(self._face, clip, measured, crops, check_call, backend=self._backend)
        else:
            rows = self._key_rows(clip)
            colours = PhotometricProblem(
                self._face,
                surface_of(model),
                clip.person,
                clip.frames.select(rows),
                self._face.measured(landmarks[rows]),
                crops[rows],
                identity_is_measured=clip.is_measured,
                backend=self._backend,
            ).solve(check_call)
        check_call()
        light = colours.light.mean(0)
        texture = self._texture(clip, colours, rows, crops)
        return self._identity(colours.identity, clip, colours.albedo, light, texture, float(colours.photometric_error.mean()))

    def _key_rows(self, clip: ClipFit) -> npt.NDArray[np.intp]:
        """Return the rows of the key frames. Half are the most neutral and least turned frames; half are spread over the rest."""
        count = len(clip.frames.error)
        if count <= KEY_FRAMES:
            return np.arange(count)
        best = best_frames(self._moved(clip), np.asarray(clip.frames.camera.rotation))[: KEY_FRAMES // 2]
        rest = np.setdiff1d(np.arange(count), best)
        spread = rest[np.linspace(0, len(rest) - 1, KEY_FRAMES - len(best)).round().astype(int)]
        return np.sort(np.concatenate([best, spread]))

    def _moved(self, clip: ClipFit) -> Float64:
        scaled = clip.frames.expression / self._face.model.expression_deviation
        return np.asarray(np.einsum("ndk,tk->tnd", self._face.expression, scaled, optimize=True), np.float64)

    def _texture(self, clip: ClipFit, colours: PhotometricFit, rows: npt.NDArray[np.intp], crops: UInt8) -> DetailedAlbedo:
        model, camera = self._face.model, colours.camera
        shapes = model.shape(
            colours.identity.astype(np.float64), colours.expression.astype(np.float64), clip.person.offset.astype(np.float64)
        )
        best = best_frames(self._moved(clip)[rows], np.asarray(camera.rotation))
        if not len(model.uv):
            return DetailedAlbedo(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.uint8))
        return detailed_albedo(
            FaceMesh.of(model),
            shapes[best],
            WeakPerspective(camera.scale[best], camera.rotation[best], camera.translation[best]),
            colours.light[best].astype(np.float64),
            crops[rows[best]],
            backend=self._backend,
        )

    def _identity(
        self, identity: Float32, clip: ClipFit, albedo: Float32, light: Float32, texture: DetailedAlbedo, photometric_error: float
    ) -> FaceIdentity:
        return FaceIdentity(
            model=self._face.name,
            model_digest=self._face.model.digest,
            identity=identity,
            offset=clip.person.offset,
            albedo=albedo,
            light=light,
            texture=texture.texture,
            seen=texture.seen,
            num_frames=len(clip.frames.error),
            landmark_error=float(clip.frames.error.mean()),
            photometric_error=photometric_error,
        )
