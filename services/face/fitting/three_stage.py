"""The three-stage fit of a face model to a video (Dubbing for Everyone, Sec. 3.1 and A.1).

1. **Shape**: the person's neutral face, which stays fixed. The paper predicts the shape from one picture by MICA, whose weights may
   not be used here. `fit_clip` measures the neutral face on the landmarks of many frames instead (person.py).
2. **What does not vary**: `fit_shared` minimises Eq. 3 over albedo, pose, expression and light of several randomly chosen frames
   together. The albedo stays fixed from here on. The weak-perspective camera has no further constants to fit.
3. **What varies**: `fit_frame` minimises Eq. 3 over expression, pose and light of each frame, in the order of the video. A frame
   starts with the light of the frame before, and with expression and pose after three Gauss-Newton steps on the frame's own
   landmarks (frames.py). The paper starts from the frame before alone, and needs more steps of Adam where the head moves fast.

Adam minimises in stages 2 and 3. Everything is deterministic: the frames of stage 2 are drawn with a fixed seed.

`fit_shared_colours` runs stages 1 and 2 on the held frames of one person, `ColouredFrames` stage 3 on a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Float32, Float64, Int64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, apply_affine, crop_from_frame, invert, to_frame
from services.common.face.identity import FaceIdentity
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.lighting import estimate_light
from services.common.geometry.rasterise import Backend, sample_picture
from services.common.geometry.rotations import matrix_from_axis_angle
from services.face.fitting.energy import DRAWN_SIZE, FitTarget, FittingWeights, FrameUnknowns, PersonEnergy, target_of
from services.face.fitting.frames import FrameFits, fit_frames, placed_face
from services.face.fitting.model import ModelLandmarks, Surface, surface_of
from services.face.fitting.person import ClipFit
from services.face.fitting.photometric import PhotometricFit
from services.face.smoothing import RawFace

_MEAN_DECAY: Final = 0.9
_SQUARE_DECAY: Final = 0.99
"""Decay of the mean square. The usual .999 averages over more steps than a fit has."""
_FLOOR: Final = 1e-8
SHARED_FRAMES: Final = 8
"""Number of frames of stage 2."""
_SEED: Final = 0
_SIZES: Final = {"expression": 0.05, "turn": 0.002, "scale": 0.002, "translation": 0.1, "light": 0.02, "albedo": 0.05}
"""First step sizes of Adam, in the units of FrameUnknowns."""
_LIGHT_RIDGE: Final = 0.02
_FIELD: Final = "config.fit_colours"


class Adam:
    """State of one minimisation.

    Args:
        sizes: first step size of each array, by name.
        steps: number of steps; the step size falls to a tenth over them, along half a cosine.
    """

    def __init__(self, sizes: Mapping[str, float], steps: int) -> None:
        self._sizes, self._steps = sizes, steps
        self._done = 0
        self._means: dict[str, Float64] = {}
        self._squares: dict[str, Float64] = {}

    def step(self, gradients: Mapping[str, Float64]) -> dict[str, Float64]:
        """Return what to add to each array, for the gradients at the present position."""
        self._done += 1
        share = 0.1 + 0.45 * (1.0 + np.cos(np.pi * (self._done - 1) / self._steps))
        change = {}
        for name, gradient in gradients.items():
            mean = _MEAN_DECAY * self._means.get(name, np.zeros_like(gradient)) + (1.0 - _MEAN_DECAY) * gradient
            square = _SQUARE_DECAY * self._squares.get(name, np.zeros_like(gradient)) + (1.0 - _SQUARE_DECAY) * gradient**2
            self._means[name], self._squares[name] = mean, square
            mean, square = mean / (1.0 - _MEAN_DECAY**self._done), square / (1.0 - _SQUARE_DECAY**self._done)
            change[name] = -self._sizes[name] * share * mean / (np.sqrt(square) + _FLOOR)
        return change


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Numbers of steps of Adam.

    Attributes:
        shared_steps: of stage 2.
        first_steps: of stage 3, in the first frame of a video, a shot or a face, which has no frame before.
        frame_steps: of stage 3, in every further frame.
    """

    shared_steps: int = 60
    first_steps: int = 30
    frame_steps: int = 10


class SharedFit(NamedTuple):
    """Result of stage 2.

    Attributes:
        albedo: float64 [A], standard deviations.
        rows: the frames that were used, int [K], ascending.
        frames: the K frames.
    """

    albedo: Float64
    rows: npt.NDArray[np.intp]
    frames: list[FittedFrame]


class FrameStart(NamedTuple):
    """Start of the fit of a frame: results of the frame before.

    Attributes:
        light: float64 [9, 3].
        correction: float64 [E], expression minus the expression of the fit to landmarks, standard deviations.
        shift: turn, scale and translation relative to the fit to landmarks, as in FrameUnknowns.
    """

    light: Float64
    correction: Float64
    shift: tuple[Float64, Float64, Float64]


class FittedFrame(NamedTuple):
    """One fitted frame.

    Attributes:
        expression: float32 [E], coefficients of the model.
        scale: crop pixels per unit of head space.
        rotation: float64 [3, 3].
        translation: float64 [2], origin of head space, crop pixels.
        light: float64 [9, 3].
        correction: float64 [E], expression minus the expression of the fit to landmarks, standard deviations.
        shift: turn, scale and translation relative to the fit to landmarks, as in FrameUnknowns.
        photo: mean absolute difference of drawn and seen colours at the last step, grey levels.
        land: root of the mean squared landmark error at the last step, crop pixels.
    """

    expression: Float32
    scale: float
    rotation: Float64
    translation: Float64
    light: Float64
    correction: Float64
    shift: tuple[Float64, Float64, Float64]
    photo: float
    land: float

    @property
    def start(self) -> FrameStart:
        """Start of the fit of the next frame."""
        return FrameStart(self.light, self.correction, self.shift)


class CropFit(NamedTuple):
    """A frame's fit to landmarks, which the fit to colours starts from.

    Attributes:
        crop: uint8 [256, 256, 3], RGB.
        landmarks: float64 [N, 2 or 3], the model's landmarks, crop pixels.
        expression: float32 [E], coefficients of the model.
        scale: crop pixels per unit of head space.
        rotation: float64 [3, 3].
        translation: float64 [2], crop pixels.
    """

    crop: UInt8
    landmarks: Float64
    expression: Float32
    scale: float
    rotation: Float64
    translation: Float64


class ThreeStageFit:
    """Stages 2 and 3 for one person, whose shape stage 1 found."""

    def __init__(
        self,
        face: ModelLandmarks,
        surface: Surface,
        identity: npt.NDArray[np.floating],
        offset: npt.NDArray[np.floating],
        *,
        weights: FittingWeights = FittingWeights(),
        schedule: Schedule = Schedule(),
        backend: Backend = "numba",
    ) -> None:
        """Prepare the person.

        Args:
            face: the model's landmarks.
            surface: skin of the same model.
            identity: [I], coefficients of stage 1.
            offset: [V, 3], the person's own shape of stage 1.
            weights: weights of Eq. 3.
            schedule: numbers of steps.
            backend: rasteriser.
        """
        model = face.model
        rest = np.zeros(model.num_expression)
        neutral = np.asarray(model.shape(np.asarray(identity, np.float64), rest, np.asarray(offset, np.float64)), np.float64)
        self._face, self._surface, self._schedule = face, surface, schedule
        self._energy = PersonEnergy(face, surface, neutral, weights, backend=backend)
        self._weights, self._backend = weights, backend
        self._deviation = model.expression_deviation.astype(np.float64)

    def fit_shared(self, frames: Sequence[CropFit], check_call: Callable[[], None] = lambda: None) -> SharedFit:
        """Stage 2: return the albedo that several frames share.

        Args:
            frames: at least one frame; SHARED_FRAMES of them are chosen at random, with a fixed seed.
            check_call: called before each step. An exception from the call stops the fit.
        """
        count = min(len(frames), SHARED_FRAMES)
        rows = np.sort(np.random.default_rng(_SEED).permutation(len(frames))[:count])
        chosen = [frames[row] for row in rows]
        targets = [self._target(frame) for frame in chosen]
        albedo = np.zeros(self._face.model.num_albedo)
        states = [
            self._start(frame, self._first_light(frame, target, albedo)) for frame, target in zip(chosen, targets, strict=True)
        ]
        adams = [Adam(_SIZES, self._schedule.shared_steps) for _ in chosen]
        shared = Adam(_SIZES, self._schedule.shared_steps)
        for _ in range(self._schedule.shared_steps):
            check_call()
            colours = self._energy.albedo(albedo)
            losses = [self._energy.loss(target, state, colours) for target, state in zip(targets, states, strict=True)]
            states = [_stepped(state, adam, loss.frame) for state, adam, loss in zip(states, adams, losses, strict=True)]
            decay = 2.0 * self._weights.reg * albedo / max(len(albedo), 1)
            slope = np.mean([loss.albedo for loss in losses], axis=0) + decay
            albedo = albedo + shared.step({"albedo": slope})["albedo"]
        fitted = [self._result(frame, target, state, albedo) for frame, target, state in zip(chosen, targets, states, strict=True)]
        return SharedFit(albedo, rows, fitted)

    def fit_frame(self, frame: CropFit, albedo: Float64, before: FrameStart | None, light: Float64 | None = None) -> FittedFrame:
        """Stage 3: return one frame.

        Args:
            albedo: float64 [A], of stage 2, standard deviations.
            before: `start` of the frame before; None: there is none.
            light: float64 [9, 3], light to start from where there is no frame before; None: estimated from the frame.
        """
        target = self._target(frame)
        if before is None:
            state = self._start(frame, self._first_light(frame, target, albedo) if light is None else light)
            steps = self._schedule.first_steps
        else:
            state = self._start(frame, before.light)
            turn, scale, translation = before.shift
            state = FrameUnknowns(state.expression + before.correction, turn, scale, translation, before.light)
            steps = self._schedule.frame_steps
        adam, colours = Adam(_SIZES, steps), self._energy.albedo(albedo)
        for _ in range(steps):
            state = _stepped(state, adam, self._energy.loss(target, state, colours).frame)
        return self._result(frame, target, state, albedo)

    def _target(self, frame: CropFit) -> FitTarget:
        return target_of(frame.crop, frame.landmarks, frame.scale, frame.rotation, frame.translation)

    def _start(self, frame: CropFit, light: Float64) -> FrameUnknowns:
        expression = frame.expression / self._deviation
        return FrameUnknowns(expression, np.zeros(3), np.zeros(1), np.zeros(2), np.asarray(light, np.float64))

    def _first_light(self, frame: CropFit, target: FitTarget, albedo: Float64) -> Float64:
        """Return the light that explains the frame's colours best, for an albedo, on the shape from the landmarks."""
        camera = WeakPerspective(np.float64(frame.scale), frame.rotation, np.append(frame.translation, 0.0))
        shape, points = self._energy.shape(frame.expression / self._deviation), self._surface.points
        pixels = (points.of(camera.project(shape))[:, :2] + 0.5) * (DRAWN_SIZE / frame.crop.shape[0]) - 0.5
        seen = sample_picture(target.picture, pixels).astype(np.float64) / 255.0
        trust = self._surface.visible(shape, camera, frame.crop.shape[:2], self._backend)
        normals = self._surface.normals(shape, camera)
        return np.asarray(estimate_light(seen, points.of(self._energy.albedo(albedo)), normals, trust, ridge=_LIGHT_RIDGE))

    def _result(self, frame: CropFit, target: FitTarget, state: FrameUnknowns, albedo: Float64) -> FittedFrame:
        loss = self._energy.loss(target, state, self._energy.albedo(albedo))
        return FittedFrame(
            (state.expression * self._deviation).astype(np.float32),
            target.scale * float(np.exp(state.scale[0])),
            np.asarray(matrix_from_axis_angle(state.turn) @ target.rotation, np.float64),
            target.translation + state.translation,
            state.light,
            state.expression - frame.expression / self._deviation,
            (state.turn, state.scale, state.translation),
            loss.photo,
            float(np.sqrt(loss.land)),
        )


def _stepped(state: FrameUnknowns, adam: Adam, gradient: FrameUnknowns) -> FrameUnknowns:
    change = adam.step(gradient._asdict())
    return FrameUnknowns(**{name: value + change[name] for name, value in state._asdict().items()})


def fit_shared_colours(
    face: ModelLandmarks,
    clip: ClipFit,
    landmarks: Float64,
    crops: UInt8,
    check_call: Callable[[], None] = lambda: None,
    *,
    backend: Backend = "numba",
) -> tuple[npt.NDArray[np.intp], PhotometricFit]:
    """Return the rows of the frames of stage 2, and their fit. The clip's fit to landmarks is stage 1, which fixes the shape.

    Args:
        face: the model's landmarks.
        clip: fit of T frames to landmarks, cameras in crop pixels.
        landmarks: [T, N, 3], crop pixels.
        crops: uint8 [T, 256, 256, 3], RGB.
        check_call: called before each step. An exception from the call stops the fit.
        backend: rasteriser.

    Raises:
        InvalidRequestError: the model has no albedo.
    """
    person, camera = clip.person, clip.frames.camera
    fit = ThreeStageFit(face, surface_of(face.model), person.identity, person.offset, backend=backend)
    given = [
        CropFit(crop, points, expression, float(scale), rotation, translation[:2])
        for crop, points, expression, scale, rotation, translation in zip(
            crops, landmarks, clip.frames.expression, camera.scale, camera.rotation, camera.translation, strict=True
        )
    ]
    shared = fit.fit_shared(given, check_call)
    frames = shared.frames
    return shared.rows, PhotometricFit(
        identity=person.identity,
        albedo=(shared.albedo * face.model.albedo_deviation).astype(np.float32),
        expression=np.stack([frame.expression for frame in frames]),
        camera=WeakPerspective(
            np.array([frame.scale for frame in frames]),
            np.stack([frame.rotation for frame in frames]),
            np.stack([np.append(frame.translation, 0.0) for frame in frames]),
        ),
        light=np.stack([frame.light for frame in frames]).astype(np.float32),
        landmark_error=np.array([frame.land for frame in frames], np.float32),
        photometric_error=np.array([frame.photo for frame in frames], np.float32),
    )


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
            InvalidRequestError: the model has no albedo.
        """
        if face.model.albedo_mean is None:
            raise InvalidRequestError(f"the morphable model {face.name!r} has no albedo: colours cannot be fitted", field=_FIELD)
        self._face = face
        self._base = face.base(identity.identity, identity.offset)
        self._fit = ThreeStageFit(face, surface_of(face.model), identity.identity, identity.offset, backend=backend)
        self._albedo = identity.albedo / face.model.albedo_deviation.astype(np.float64)
        self._light = identity.light.astype(np.float64)
        self._last: dict[int, tuple[int, FrameStart]] = {}

    def forget(self) -> None:
        """Begin a new shot: no frame starts from a frame before the cut."""
        self._last.clear()

    def arrays(self) -> dict[str, Array]:
        """Return what `set_arrays` takes."""
        last = sorted(self._last.items())
        starts = [start for _, (_, start) in last]
        return {
            "face": np.array([face_id for face_id, _ in last], np.int64),
            "frame": np.array([frame for _, (frame, _) in last], np.int64),
            "light": np.array([start.light for start in starts], np.float64).reshape(-1, 9, 3),
            "correction": np.array([start.correction for start in starts], np.float64).reshape(-1, self._face.model.num_expression),
            "shift": np.array([np.concatenate(start.shift) for start in starts], np.float64).reshape(-1, 6),
        }

    def set_arrays(self, face: Int64, frame: Int64, light: Float64, correction: Float64, shift: Float64) -> None:
        """Go on from the arrays of another stream, of M faces.

        Args:
            face: int64 [M], ids of the faces.
            frame: int64 [M], last fitted frame of each face.
            light: float64 [M, 9, 3], see FrameStart, as are the others.
            correction: float64 [M, E].
            shift: float64 [M, 6]: turn, scale, translation.
        """
        rows = zip(face.tolist(), frame.tolist(), light, correction, shift, strict=True)
        self._last = {
            face_id: (index, FrameStart(lit, added, (moved[:3], moved[3:4], moved[4:])))
            for face_id, index, lit, added, moved in rows
        }

    def fit(self, face_id: int, frame: int, raw: RawFace, picture: npt.NDArray[np.uint8]) -> ColouredFrame:
        """Fit a face in the next frame.

        Args:
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
        camera = on_landmarks.camera
        given = CropFit(
            placed.crop, image, on_landmarks.expression[0], float(camera.scale[0]), camera.rotation[0], camera.translation[0, :2]
        )
        index, before = self._last.get(face_id, (-1, None))
        fitted = self._fit.fit_frame(given, self._albedo, before if index == frame - 1 else None, self._light)
        self._last[face_id] = frame, fitted.start
        depth = raw.pose.scale * camera.translation[0, 2]
        translation = np.append(apply_affine(invert(affine), fitted.translation[None])[0], depth).astype(np.float64)
        pose = HeadPose(raw.pose.scale * fitted.scale, roll.T @ fitted.rotation, translation)
        fits = FrameFits(
            fitted.expression[None],
            WeakPerspective(np.array([pose.scale]), pose.rotation[None], pose.translation[None]),
            np.array([fitted.land], np.float32),
        )
        return ColouredFrame(fits, fitted.light)


def _about_axis(angle: float) -> Float64:
    """Return the rotation by `angle`, radians, clockwise on the screen, float64 [3, 3]."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
