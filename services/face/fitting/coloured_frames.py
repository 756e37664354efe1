"""Stage 3 of the three-stage fit on a stream: each frame's expression, pose and light, started from the frame before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64
from services.common.errors import InvalidRequest
from services.common.face.crops import HeadPose, apply_affine, crop_from_frame, invert, to_frame
from services.common.face.identity import FaceIdentity
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.rasterise import Backend
from services.face.fitting.frames import FrameFits, fit_frames
from services.face.fitting.held_frames import placed_face
from services.face.fitting.model_landmarks import ModelLandmarks
from services.face.fitting.surface import surface_of
from services.face.fitting.three_stage import CropFit, FittedFrame, ThreeStageFit
from services.face.smoothing import RawFace

_FIELD: Final = "config.fit_colours"


@dataclass(frozen=True, slots=True)
class ColouredFrame:
    """One fitted frame. Attributes: fits: one frame, cameras in frame pixels; light: float64 [9, 3], camera axes."""

    fits: FrameFits
    light: Float64


class ColouredFrames:
    """Fits every face of one stream with one person's shape and albedo.

    Each frame starts from the frame before, so its result depends on the frames of the face since the last cut or gap.
    """

    def __init__(self, face: ModelLandmarks, identity: FaceIdentity, backend: Backend = "numba") -> None:
        """Begin a stream.

        Args:
            face: the model's landmarks.
            identity: the person.
            backend: rasteriser.

        Raises:
            InvalidRequest: the model has no albedo.
        """
        if face.model.albedo_mean is None:
            raise InvalidRequest(f"the morphable model {face.name!r} has no albedo: colours cannot be fitted", field=_FIELD)
        self._face = face
        self._base = face.base(identity.identity, identity.offset)
        self._fit = ThreeStageFit(face, surface_of(face.model), identity.identity, identity.offset, backend=backend)
        self._albedo = identity.albedo / face.model.albedo_deviation.astype(np.float64)
        self._light = identity.light.astype(np.float64)
        self._last: dict[int, tuple[int, FittedFrame]] = {}

    def forget(self) -> None:
        """Begin a new shot: no frame starts from a frame before the cut."""
        self._last.clear()

    def fit(self, face_id: int, frame: int, raw: RawFace, picture: npt.NDArray[np.uint8]) -> ColouredFrame:
        """Fit a face in the next frame.

        Args:
            face_id: id of the face.
            frame: index of the frame.
            raw: reading of the face.
            picture: the frame, uint8 RGB [H, W, 3].
        """
        affine = crop_from_frame(raw.pose)
        placed = placed_face(picture, to_frame(raw.head_landmarks, raw.pose), raw.pose)
        image = self._face.measured(placed.landmarks)
        roll = _about_axis(-np.radians(raw.pose.roll_degrees))
        middle = np.append(apply_affine(affine, raw.pose.translation), raw.pose.translation[2] / raw.pose.scale).astype(np.float64)
        start = WeakPerspective(np.ones(1), (roll @ raw.pose.rotation)[None], middle[None])
        on_landmarks = fit_frames(self._face, self._base, image[None], start)
        camera = on_landmarks.poses()
        given = CropFit(
            placed.crop, image, on_landmarks.expression[0], float(camera.scale[0]), camera.rotation[0], camera.translation[0, :2]
        )
        index, before = self._last.get(face_id, (-1, None))
        found = self._fit.fit_frame(given, self._albedo, before if index == frame - 1 else None, self._light)
        self._last[face_id] = frame, found
        depth = raw.pose.scale * camera.translation[0, 2]
        place = np.append(apply_affine(invert(affine), found.place[None])[0], depth).astype(np.float64)
        pose = HeadPose(raw.pose.scale * found.scale, roll.T @ found.rotation, place)
        fits = FrameFits(
            found.expression[None],
            WeakPerspective(np.array([pose.scale]), pose.rotation[None], pose.translation[None]),
            np.array([found.land], np.float32),
        )
        return ColouredFrame(fits, found.light)


def _about_axis(angle: float) -> Float64:
    """Return the rotation by `angle`, radians, clockwise on the screen, float64 [3, 3]."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
