"""Fit of one person's shape, albedo, light and texture to many frames, or to one still picture (FitIdentity)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.face.crops import MAX_HEAD_PX
from services.common.face.drawing import FaceMesh
from services.common.face.identity import FaceIdentity
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.lighting import ambient
from services.common.geometry.rasterise import Backend
from services.face.fitting.frames import HeldFrames
from services.face.fitting.model import ModelLandmarks, surface_of
from services.face.fitting.person import ClipFit, fit_clip
from services.face.fitting.photometric import PhotometricFit, PhotometricProblem
from services.face.fitting.texture import DetailedAlbedo, best_frames, detailed_albedo
from services.face.fitting.three_stage import fit_shared_colours
from services.face.types import TrackedFace

KEY_FRAMES: Final = 12
"""Number of frames whose colours are fitted."""
_NO_FACE: Final = "frame.face.landmarks: no face fits to the landmarks of these frames: send them as Track answered them"


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
            NoUsableFootage: no frame could be used.
            InvalidRequest: no face fits to the frames' landmarks.
        """
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the numbers are checked below
                person = self._fitted(check_call)
        except np.linalg.LinAlgError:
            raise InvalidRequest(_NO_FACE, field="frame.face.landmarks") from None
        numbers = (person.identity, person.offset, person.albedo, person.light, [person.landmark_error, person.photometric_error])
        if not all((np.abs(part) <= MAX_HEAD_PX).all() for part in numbers):
            raise InvalidRequest(_NO_FACE, field="frame.face.landmarks")
        return person

    def _fitted(self, check_call: Callable[[], None]) -> FaceIdentity:
        frames = self._held.frames
        if not frames:
            raise NoUsableFootage(
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
        best = best_frames(self._displacement(clip), np.asarray(clip.frames.camera.rotation))[: KEY_FRAMES // 2]
        rest = np.setdiff1d(np.arange(count), best)
        spread = rest[np.linspace(0, len(rest) - 1, KEY_FRAMES - len(best)).round().astype(int)]
        return np.sort(np.concatenate([best, spread]))

    def _displacement(self, clip: ClipFit) -> Float64:
        scaled = clip.frames.expression / self._face.model.expression_deviation
        moved = np.einsum("ndk,tk->tnd", self._face.expression, scaled, optimize=True)
        return np.asarray(np.sqrt((moved**2).sum(-1).mean(-1)), np.float64)

    def _texture(self, clip: ClipFit, colours: PhotometricFit, rows: npt.NDArray[np.intp], crops: UInt8) -> DetailedAlbedo:
        model, camera = self._face.model, colours.camera
        shapes = model.shape(
            colours.identity.astype(np.float64), colours.expression.astype(np.float64), clip.person.offset.astype(np.float64)
        )
        best = best_frames(self._displacement(clip)[rows], np.asarray(camera.rotation))
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
