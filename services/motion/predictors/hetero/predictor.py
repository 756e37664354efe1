"""The motion predictor `hetero` (Realistic Visual Dubbing, Xie et al. 2021, Sec. 3.2), its style, and its personalisation.

**Window of speech.** Xie et al. 2021, Sec. 3.2.1, take 80 mel bands, with a step of 200 ms (20 rows of 10 ms) for each video frame.
The audio stage's spectrum has analysis windows of 25 ms, the paper's has 40 ms. The paper does not say how its spectrum is
normalised: here bands are relative to the speech of the four seconds before. Training can take states of the speech encoder in the
place of the spectrum, to measure what each tells.

**Style.** The style holds the vectors of reference mouths and pose landmarks. In Sec. 3.2.1 the reference is a global condition,
the mean over any number of landmark frames. Here the reference is the enrolment, so the vector is part of the style.

The paper's pose landmarks come from the frame that is dubbed, and show the head pose of this frame. All landmarks of this stage are
in head space, where the head pose is taken out. What is left is the shape of the person's upper face. So we take the mean of the
pose landmarks over the enrolment, and their vector is part of the style too.

**Prediction.** Each frame n of the 25 frames/s grid is a pure function of the spectrum of frames n - 13 .. n + 5. So the same
features in other pieces give the same bytes. Beyond the paper, p, b, m and silence shut the lips, and amplitude and rest mouth are
the person's.

**Personalisation.** The generator needs no training on the person: the reference landmarks condition it. Personalize puts the
vectors of the footage into a style that was encoded for another method, and changes no other style.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.methods import PREDICTORS
from services.common.store.network_session import open_network
from services.motion.constraints import ConstraintConfig
from services.motion.features import RelativeStream, relative_energy
from services.motion.models import MotionModels, PredictorModel
from services.motion.person_predictor import PersonPredictor, amplified, motion_of_windows
from services.motion.predictor import Predictor, StyleStep, encode_mouths, frames_to_learn_from
from services.motion.runtime import read_constants, run
from services.motion.style import Style
from services.motion.types import NUM_MELS, ROWS_PER_FRAME, Footage, Motion, SpeechFeatures

SpeechInput = Literal["mel", "states"]
"""Input of the generator: the paper's mel spectrogram, or states of the speech encoder."""
SERVED: Final[SpeechInput] = "mel"
"""Input of the generator that the stage serves."""
WINDOW_AHEAD: Final = 5
"""Frames of features after the predicted frame: 200 ms of look-ahead."""
WINDOW_PAST: Final = 13
"""Frames of features before the predicted frame: .52 s."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
QUIET: Final = -1.5
"""Relative mel power of the silence before a stream: the typical value of quiet frames in speech."""
GENERATOR: Final = "hetero_generator"
"""Name of the network from speech and person to landmark coefficients."""
PERSON: Final = "hetero_person"
"""Name of the network of the reference encoder and the pose encoder."""
CONSTANTS_FILE: Final = "hetero_constants.safetensors"
REFERENCE_FRAMES: Final = 64
"""Most mouths that the reference encoder averages over, evenly spaced over the enrolment."""
REFERENCE: Final = "reference_embedding"
"""Name of the style's array with the vector of the reference mouths, float32 [C]."""
POSE: Final = "pose_embedding"
"""Name of the style's array with the vector of the pose landmarks, float32 [C]."""


def relative_mel(features: SpeechFeatures) -> Float32:
    """Return relative mel power of a whole stream, float32 [T, 4, 80] within [-3, 3], see features.relative_energy."""
    return relative_energy(features.mel, features.speech_probability)


def mel_before(num_frames: int) -> Float32:
    """Return the relative mel power of the silence before a stream, float32 [T, 4, 80]."""
    return np.full((num_frames, ROWS_PER_FRAME, NUM_MELS), QUIET, np.float32)


class HeteroModel(PredictorModel):
    """Landmark generator and its constants. The networks' basis is MotionModels.basis.

    Attributes:
        mean_reference: float32 [C], mean vector of the training speakers' reference mouths.
        mean_pose: float32 [C], mean vector of the training speakers' pose landmarks.
        mean_face: float32 [99, 3], mean pose landmarks of the training speakers, head space.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the networks; see PredictorModel."""
        super().__init__(folder, threads)
        constants = read_constants(folder / CONSTANTS_FILE)
        self.version = constants.metadata.get("version", "")
        self.mean_reference: Float32 = constants["mean_reference"]
        self.mean_pose: Float32 = constants["mean_pose"]
        self.mean_face: Float32 = constants["mean_face"]
        self._generator, self._person = (open_network(folder / f"{name}.onnx", threads) for name in (GENERATOR, PERSON))

    def encode(self, mouths: Float32, pose_landmarks: Float32 | None) -> tuple[Float32, Float32]:
        """Return the vectors of a person's reference mouths and of the pose landmarks, float32 [C] each.

        Args:
            mouths: float32 [T, 59, 3], usable mouths of the enrolment, T >= 1. At most 64 of them are read.
            pose_landmarks: float32 [T, 99, 3], pose landmarks of the same frames; None: the mean face.
        """
        chosen = mouths[np.linspace(0, len(mouths) - 1, min(len(mouths), REFERENCE_FRAMES)).round().astype(np.intp)]
        pose = self.mean_face if pose_landmarks is None else pose_landmarks.mean(axis=0, dtype=np.float64).astype(np.float32)
        reference, upper = run(self._person, mouths=chosen[None], pose=pose[None])
        return reference[0], upper[0]

    def predict(self, speech: Float32, reference: Float32, pose: Float32) -> Float32:
        """Return the motion of one window's frame: coefficients float32 [K] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            speech: float32 [19, 4, 80], see relative_mel.
            reference: float32 [C], vector of the person's reference mouths.
            pose: float32 [C], vector of the person's pose landmarks.
        """
        coefficients: Float32 = run(self._generator, speech=speech[None], reference=reference[None], pose=pose[None])[0][0, 0]
        return coefficients


def encode_hetero_style(footage: Footage, models: MotionModels) -> Style:
    """Return the style of a person from tracked footage.

    Args:
        footage: T frames. Without pose landmarks, the pose landmarks are those of the mean face.

    Raises:
        NoUsableFootageError: fewer than 25 usable frames.
    """
    return with_person(encode_mouths(footage, models), footage, models)


def with_person(style: Style, footage: Footage, models: MotionModels) -> Style:
    """Return a style with the person's vectors from footage with at least one usable frame."""
    upper = footage.pose_landmarks
    reference, pose = HeteroModel.of(models).encode(
        footage.mouth_landmarks[footage.usable], None if upper is None else upper[footage.usable]
    )
    return style.adding(**{REFERENCE: reference, POSE: pose})


def knows_person(style: Style) -> bool:
    """Return whether a style has the person's vectors."""
    return REFERENCE in style.added and POSE in style.added


def person_of(style: Style) -> tuple[Float32, Float32]:
    """Return the vectors of the person's reference mouths and pose landmarks, float32 [C] each.

    Raises:
        InvalidRequestError: the style was encoded for another method.
    """
    if not knows_person(style):
        raise InvalidRequestError(
            "style: the style has no reference landmarks: encode the style with method `hetero`", field="style"
        )
    return style.added[REFERENCE], style.added[POSE]


def mean_hetero_speaker(style: Style, models: MotionModels) -> Style:
    """Return the style for the ablation: the person's own mouths with the vectors of the mean training speaker."""
    model = HeteroModel.of(models)
    return models.mean_speaker(style).adding(**{REFERENCE: model.mean_reference, POSE: model.mean_pose})


class HeteroPredictor(PersonPredictor):
    """The predictor `hetero` of one person, with five frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open.

        Raises:
            InvalidRequestError: the style was encoded for another method.
        """
        super().__init__(style, constraints, mel_before(WINDOW_PAST), WINDOW_AHEAD)
        self._model, self._basis = HeteroModel.of(models), models.basis
        self._reference, self._pose = person_of(style)
        self._stream = RelativeStream(relative_energy, (ROWS_PER_FRAME, NUM_MELS))

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return self._stream.push(features.mel, features.speech_probability)

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, inputs, speaking, voiced, WINDOW, self._mouth)

    def _mouth(self, window: Float32, _: float) -> Float32:
        """Return the mouth of a window [19, 4, 80]: float32 [59, 3], before constraints."""
        coefficients = self._model.predict(window, self._reference, self._pose)
        offsets = self._basis.reconstruct((coefficients * self._style.spread).astype(np.float32))
        return amplified(self._style.rest_mouth + offsets, self._style)


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    """Refine a style for `hetero`. Arguments and errors: see services.motion.predictor.Predictor.

    If the style was encoded for another method, the footage is the reference.

    Yields:
        One step with the style. The loss is 1: nothing is trained.
    """
    frames_to_learn_from(footage.usable)
    yield StyleStep(1, 1, 1.0, style if knows_person(style) else with_person(style, footage, models))


def _vector_shape(models: MotionModels) -> tuple[int, ...]:
    return HeteroModel.of(models).mean_reference.shape


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["hetero"],
    version=HeteroModel.version_of,
    open=HeteroPredictor,
    personalize=personalize,
    style_arrays={
        REFERENCE: _vector_shape,
        POSE: _vector_shape,
    },
    encode_style=encode_hetero_style,
    mean_style=mean_hetero_speaker,
)
