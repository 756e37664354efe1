"""Coefficients of every face of a stream, frame by frame, smoothed without lag within the stream's look-ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Float32, Float64
from services.common.face.crops import (
    HeadPose,
    head_poses_of,
    numbers_of_poses,
    poses_of_numbers,
    to_frame,
    weak_perspective_of,
)
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import MOUTH_AREA
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.rotations import nearest_rotation
from services.face.fitting.frames import FrameFits, fit_frames, landmark_errors
from services.face.fitting.model import ModelLandmarks
from services.face.fitting.three_stage import ColouredFrames
from services.face.smoothing import RawFace, movement, window_weights
from services.face.types import FaceCoefficients

_JOINT_RIDGE = 8.0


@dataclass(frozen=True, slots=True)
class _FittedPerson:
    """Person of the stream. Attributes: identity, float32 [I]; base: landmarks without expression, float64 [N, 3]."""

    identity: Float32
    base: Float64


class StreamSizes(NamedTuple):
    """Sizes of the arrays of a stream.

    Attributes:
        identity: number of identity coefficients.
        expression: number of expression coefficients.
        has_identity: whether the identity is given.
        colours: whether the colours of every frame are fitted.
    """

    identity: int
    expression: int
    has_identity: bool
    colours: bool


class StreamFitter:
    """Fitter of the faces of one stream.

    If an identity is given, every face is fitted with this identity. Otherwise a face's identity follows from the face's first
    frame and the look-ahead after the first frame, and does not change later. The coefficients of a face therefore belong to one
    shape, and the same frames give the same numbers.
    """

    def __init__(self, face: ModelLandmarks, identity: FaceIdentity | None = None, colours: ColouredFrames | None = None) -> None:
        """Begin a stream.

        Args:
            face: the model's landmarks.
            identity: FitIdentity's, on the same model; None: identities follow from the stream.
            colours: fits the colours of every frame too, with the same identity; None: frames are fitted only to landmarks.
        """
        self._face, self._identity, self._colours = face, identity, colours
        self._mouth = np.isin(face.landmarks.mediapipe, MOUTH_AREA)
        self._people: dict[int, _FittedPerson] = {}
        self._fits: dict[tuple[int, int], FrameFits] = {}
        self._lights: dict[tuple[int, int], Float64] = {}

    def see(self, face_id: int, frame: int, raw: RawFace, picture: npt.NDArray[np.uint8]) -> None:
        """Take a face of the next frame, in the order of the stream, before `coefficients` is asked for the frame.

        Args:
            frame: index of the frame.
            raw: reading of the face.
            picture: the frame, uint8 RGB [H, W, 3].
        """
        if self._colours is not None:
            fit = self._colours.fit(face_id, frame, raw, picture)
            self._fits[face_id, frame], self._lights[face_id, frame] = fit.fits, fit.light

    @property
    def sizes(self) -> StreamSizes:
        """Sizes of the arrays that `arrays` returns."""
        model = self._face.model
        return StreamSizes(model.num_identity, model.num_expression, self._identity is not None, self._colours is not None)

    def arrays(self) -> dict[str, Array]:
        """Return what `set_arrays` takes. Fits to landmarks are not among the arrays: they are found again from the readings."""
        arrays: dict[str, Array] = {}
        if self._identity is None:
            people = sorted(self._people.items())
            identities = [person.identity for _, person in people]
            arrays["fitted.face"] = np.array([face_id for face_id, _ in people], np.int64)
            arrays["fitted.identity"] = np.array(identities, np.float32).reshape(-1, self._face.model.num_identity)
        if self._colours is not None:
            keys = sorted(self._lights)
            fits = [self._fits[key] for key in keys]
            poses = [pose for fit in fits for pose in head_poses_of(fit.camera)]
            expressions = [fit.expression for fit in fits]
            arrays["fits.face"] = np.array([face_id for face_id, _ in keys], np.int64)
            arrays["fits.frame"] = np.array([frame for _, frame in keys], np.int64)
            arrays["fits.expression"] = np.array(expressions, np.float32).reshape(-1, self._face.model.num_expression)
            arrays["fits.pose"] = numbers_of_poses(poses)
            arrays["fits.error"] = np.array([fit.error[0] for fit in fits], np.float32)
            arrays["fits.light"] = np.array([self._lights[key] for key in keys], np.float64).reshape(-1, 9, 3)
            arrays |= {f"last.{name}": array for name, array in self._colours.arrays().items()}
        return arrays

    def set_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Go on from the arrays of another stream with the same model, identity and colours."""
        if self._identity is None:
            for face_id, identity in zip(arrays["fitted.face"].tolist(), arrays["fitted.identity"], strict=True):
                self._people[face_id] = _FittedPerson(identity, self._face.base(identity))
        if self._colours is not None:
            keys = zip(arrays["fits.face"].tolist(), arrays["fits.frame"].tolist(), strict=True)
            for row, key in enumerate(keys):
                (pose,) = poses_of_numbers(arrays["fits.pose"][row : row + 1])
                camera = WeakPerspective(np.array([pose.scale]), pose.rotation[None], pose.translation[None])
                self._fits[key] = FrameFits(arrays["fits.expression"][row][None], camera, arrays["fits.error"][row : row + 1])
                self._lights[key] = arrays["fits.light"][row]
            names = ("face", "frame", "light", "correction", "shift")
            self._colours.set_arrays(*(arrays[f"last.{name}"] for name in names))

    def cut(self) -> None:
        """Begin a new shot."""
        if self._colours is not None:
            self._colours.forget()

    def coefficients(
        self, face_id: int, first_frame: int, span: Sequence[RawFace], centre: int, half_width: int
    ) -> FaceCoefficients:
        """Return the coefficients of one face in one frame.

        Args:
            first_frame: index of the span's first frame.
            span: readings of the face around the frame, without a gap and within the shot.
            centre: position of the frame in the span.
            half_width: frames on either side that smoothing may use.
        """
        person = self._people.get(face_id)
        if person is None:
            person = self._people[face_id] = self._person(span[centre:])
        self._forget(face_id, first_frame)
        fits = [self._fit(person, (face_id, first_frame + index), raw) for index, raw in enumerate(span)]
        lights = [self._lights.get((face_id, first_frame + index)) for index in range(len(span))]
        return self._smoothed(person, fits, lights, span, centre, half_width)

    def _person(self, span: Sequence[RawFace]) -> _FittedPerson:
        if self._identity is not None:
            return _FittedPerson(self._identity.identity, self._face.base(self._identity.identity, self._identity.offset))
        image, camera = self._image(span), weak_perspective_of([raw.pose for raw in span])
        fit = coefficients_from_landmarks(
            self._face.model, image, camera, landmarks=self._face.landmarks, weights=self._face.trust, ridge=_JOINT_RIDGE
        )
        return _FittedPerson(fit.identity, self._face.base(fit.identity))

    def _image(self, span: Sequence[RawFace]) -> Float64:
        return self._face.measured(np.stack([to_frame(raw.head_landmarks, raw.pose) for raw in span]))

    def _fit(self, person: _FittedPerson, key: tuple[int, int], raw: RawFace) -> FrameFits:
        if key not in self._fits:
            self._fits[key] = fit_frames(self._face, person.base, self._image([raw]), weak_perspective_of([raw.pose]))
        return self._fits[key]

    def _forget(self, face_id: int, before: int) -> None:
        for key in [key for key in self._fits if key[1] < before and (key[0] == face_id or key[1] < before - 16)]:
            del self._fits[key]
            self._lights.pop(key, None)

    def _smoothed(
        self,
        person: _FittedPerson,
        fits: list[FrameFits],
        lights: list[Float64 | None],
        span: Sequence[RawFace],
        centre: int,
        half_width: int,
    ) -> FaceCoefficients:
        face = self._face
        scaled = np.concatenate([fit.expression for fit in fits]) / face.model.expression_deviation
        heads = person.base + np.einsum("ndk,tk->tnd", face.expression, scaled, optimize=True)
        cameras = [fit.camera for fit in fits]
        scale, rotation, translation = (
            np.concatenate([getattr(camera, name) for camera in cameras]) for name in ("scale", "rotation", "translation")
        )
        # Expression is smoothed while the mouth rests in head space, the pose while the head rests in the picture.
        mouth = window_weights(movement(heads[:, self._mouth, :2]), centre, half_width)
        rigid = WeakPerspective(scale, rotation, translation).project(np.broadcast_to(person.base, heads.shape)) / scale[centre]
        still = window_weights(movement(rigid[..., :2]), centre, half_width)
        expression = mouth @ scaled
        camera = WeakPerspective(
            np.exp(still @ np.log(scale))[None],
            nearest_rotation(np.einsum("t,tij->ij", still, rotation))[None],
            (still @ translation)[None],
        )
        shape = person.base + face.expression.reshape(-1, face.expression.shape[-1]).dot(expression).reshape(-1, 3)
        error = landmark_errors(camera.project(shape[None]), self._image(span[centre : centre + 1]), camera.scale)
        identity = self._identity
        light = None if identity is None else identity.light
        if seen := [each for each in lights if each is not None]:
            # Light belongs to the shot: the window's mean.
            light = np.mean(seen, axis=0).astype(np.float32)
        return FaceCoefficients(
            model=face.name,
            identity=person.identity,
            expression=(expression * face.model.expression_deviation).astype(np.float32),
            albedo=None if identity is None else identity.albedo,
            light=light,
            pose=HeadPose(float(camera.scale[0]), camera.rotation[0], camera.translation[0]),
            landmark_error=float(error[0]),
        )
