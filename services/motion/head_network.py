"""Head movement from speech (Yi et al. 2020, Sec. 3.2): network, stream of head poses, blinks, and what footage teaches of a head.

Predictors that move the head share this module. They differ in the mouth.

**Network inputs** are cepstra of the speech (MFCC) against the voice's own mean:

    c = DCT-II(mel), orthonormal, coefficients 0 to 20;   c' = (c - mean) / scale

The mean covers the speech in the frame itself and at most 100 frames before the frame. So microphone and voice drop out, and a
stream needs none of its future.

**Network.** An LSTM leads from cepstra to expression and head pose, one step per frame of the 25 frames/s grid. The LSTM's state
goes on from the first frame, so the same features in other pieces give the same bytes. Least squares learns the mean of the head's
movement, which hardly moves; head_motion.py brings back the person's distribution and pace of head poses.

**Blinks.** Still pictures get a natural schedule of blinks, because their eyes would never move otherwise.

Each span of 4 s has one blink. The span's number and a fixed seed decide the blink's position in the span, so that two blinks lie
1.2 to 6.8 s apart. A blink takes 0.28 s: the lids shut within 0.1 s and open more slowly (Caffier et al. 2003).

**Footage** teaches what the person's speech tells of the person's head movement. The paper fine-tunes its LSTM on 300 frames
(Sec. 4.1). Here only the output layer is fitted, in closed form: for each of the six independent scores of the person, ridge
regression on the signals of the speech after the filter of the person's pace (head_motion.py). Cross-validation over blocks
measures how far the regression holds, a correlation rho. A score then follows

    rho * regression + sqrt(1 - rho^2) * signals of the general speaker

so that the score keeps the person's spread. The pace is corrected once: the head that results from the person's own speech shall
move as fast as the true head. There are no random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Bool, Float32, Float64
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.crops import MAX_SCALE, MIN_SCALE, POSE_SIZE
from services.common.face.landmarks import lip_width, mouth_opening, shut_lips
from services.common.server.call_context import check_not_cancelled
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.timeline import MOTION_RATE
from services.motion.basis import LandmarkBasis
from services.motion.constraints import ConstraintConfig
from services.motion.expression import ExpressionModel, ExpressionPredictor
from services.motion.features import ENERGY_PAST, NUM_CONTENT, ContentStream, RelativeStream, content_before, content_rows, silence
from services.motion.head_motion import (
    NUM_KNOTS,
    NUM_SIGNALS,
    STEP_RANGE,
    HeadStyle,
    PoseMap,
    Rhythm,
    RhythmConstants,
    ScoreStream,
    SignalStream,
    general_weights,
    independent_scores,
    measure_head,
    relative_poses,
    slowed_down,
    still_head,
    tuned,
)
from services.motion.models import MotionModels
from services.motion.predictor import NUM_BLOCKS, Shape, StyleStep, encode_mouths
from services.motion.runtime import run
from services.motion.style import Style
from services.motion.types import NUM_MELS, ROWS_PER_FRAME, Footage, Motion, SpeechFeatures

SEED: Final = 20
SPAN_FRAMES: Final = 100
"""Frames of a span: 4 s of the 25 frames/s grid."""
_MARGIN: Final = 15
CLOSURE: Final[tuple[float, ...]] = (0.45, 1.0, 1.0, 0.75, 0.45, 0.2, 0.05)
"""Closure of the eyes in the frames of one blink, 0 open to 1 shut."""
STILL_REST_PX: Final = np.float32(4.0)
"""Opening of the rest mouth of a still, crop pixels: the mean over eleven speakers of Style.rest_mouth's opening (1 to 7)."""
STILL_GAIN: Final = np.float32(1.3)
"""Gain of a still's movement. A prediction of least error moves less than people do, and no footage tells by how much."""
SMILE_LOST: Final = np.float32(0.5)
"""Share of a smile's width beyond WIDEST_SPEAKING_PX that speech takes away."""
WIDEST_SPEAKING_PX: Final = np.float32(70.0)
"""Lip width that nine of eleven speakers stay under in the median frame, crop pixels."""
NUM_COEFFICIENTS: Final = 21
_SCALE: Final = np.array([16.0, *([4.0] * (NUM_COEFFICIENTS - 1))])
"""Approximate size of each coefficient in speech."""
_PAUSE_WEIGHT: Final = 0.02
_LIMIT: Final = 4.0
WEIGHTS_ARRAY: Final = "pose_weights"
_MAX_CONDITION: Final = 1e8
_MAX_LOG: Final = 20.0
"""Largest magnitude of the logarithm of a pose's scale, relative to the reference's scale."""
STYLE_ARRAYS: Final[dict[str, Shape]] = {
    "pose_reference": lambda _: (6,),
    "pose_quantiles": lambda _: (6, NUM_KNOTS),
    "pose_mixing": lambda _: (6, 6),
    "pose_steps": lambda _: (6,),
    WEIGHTS_ARRAY: lambda _: (6, NUM_SIGNALS),
}
"""Arrays that a predictor of head movement adds to a style. EncodeStyle adds the first four (HeadStyle); Personalize adds
`pose_weights` (head_motion.py) and replaces `pose_steps`.
"""
_HEAD_ARRAYS: Final = ("pose_reference", "pose_quantiles", "pose_mixing", "pose_steps")
_CHUNK: Final = 50
"""Frames per step of progress."""
_RIDGE: Final = 0.3
"""Ridge in units of a signal's variance times the number of frames; large, because neighbouring frames tell the same."""
_SAME_SIGNALS: Final = 1e-12
"""Variance of all signals together, at or below which they are the same in every frame: the footage is silent."""
_MAX_TRUST: Final = 0.8
_PACE_RANGE: Final = (0.5, 1.5)
MAX_FRAMES: Final = 300
"""Frames that are learned from, as in the paper: the first twelve seconds of usable frames."""


def blink_start(span: int) -> int:
    """Return the grid frame at which the blink of a span begins."""
    rng = np.random.default_rng([SEED, span])
    return span * SPAN_FRAMES + int(rng.integers(_MARGIN, SPAN_FRAMES - _MARGIN))


def blinks(frames: npt.NDArray[np.intp]) -> Float32:
    """Return the closure of the eyes at frames of the grid (25 per second, >= 0): float32 [T], 0 open to 1 shut."""
    assert MOTION_RATE == 25
    closures = np.zeros(len(frames), np.float32)
    for row, frame in enumerate(frames):
        since = int(frame) - blink_start(int(frame) // SPAN_FRAMES)
        if 0 <= since < len(CLOSURE):
            closures[row] = CLOSURE[since]
    return closures


def _cosines() -> Float64:
    order = np.arange(NUM_COEFFICIENTS)[:, None]
    size = np.sqrt(np.where(order == 0, 1.0, 2.0) / NUM_MELS)
    return np.asarray(size * np.cos(np.pi / NUM_MELS * order * (np.arange(NUM_MELS) + 0.5)))


_COSINES: Final = _cosines()


def cepstra(mel: Float32) -> Float32:
    """Return cepstral coefficients 0 to 20 of log-mel rows: float32 [T, 4, 80] -> [T, 4, 21]."""
    result = np.empty((len(mel), ROWS_PER_FRAME, NUM_COEFFICIENTS), np.float32)
    for row, frame in zip(result, mel, strict=True):  # one by one: the bits of a matrix product may depend on the number of rows
        row[:] = frame @ _COSINES.T
    return result


def relative_cepstra(rows: Float32, speech_probability: Float32, begin: int = 0) -> Float32:
    """Return cepstra of frames from `begin` on against the mean of the speech before: float32 [T - begin, 4, 21], within [-4, 4].

    Args:
        rows: float32 [T, 4, 21] from the start of the stream, or from 100 frames before `begin`.
        speech_probability: float32 [T].
        begin: first target frame.
    """
    result = np.empty((len(rows) - begin, *rows.shape[1:]), np.float32)
    weight = speech_probability.astype(np.float64) + _PAUSE_WEIGHT
    means = rows.astype(np.float64).mean(axis=1)
    for frame in range(begin, len(rows)):
        past = slice(max(0, frame - ENERGY_PAST), frame + 1)
        mean = (weight[past, None] * means[past]).sum(axis=0) / weight[past].sum()
        result[frame - begin] = (rows[frame] - mean) / _SCALE
    return np.clip(result, -_LIMIT, _LIMIT)


def input_rows(features: SpeechFeatures) -> Float32:
    """Return network inputs of a whole stream: float32 [T, 4, 65], content rows (features.content_rows) and relative cepstra."""
    return np.concatenate([content_rows(features), relative_cepstra(cepstra(features.mel), features.speech_probability)], axis=-1)


def input_before(num_frames: int) -> Float32:
    """Return network inputs of the silence before a stream, float32 [T, 4, 65]."""
    silent = np.zeros((num_frames, ROWS_PER_FRAME, NUM_COEFFICIENTS), np.float32)
    return np.concatenate([content_before(num_frames), silent], axis=-1)


def network_input(features: SpeechFeatures, past: int, ahead: int) -> Float32:
    """Return network inputs of a whole clip of T frames with the silence around the clip: float32 [past + T + ahead, 4, 65]."""
    return np.concatenate([input_before(past), input_rows(SpeechFeatures.joined([features, silence(ahead)]))])


def content_of(rows: Float32) -> Float32:
    """Return the content rows in network inputs: [..., 65] -> [..., 44]."""
    return rows[..., :NUM_CONTENT]


class SpeechInputStream:
    """Network inputs of a stream that comes in pieces: the same bytes as `input_rows` of the whole stream."""

    def __init__(self) -> None:
        self._content = ContentStream()
        self._cepstra = RelativeStream(relative_cepstra, (ROWS_PER_FRAME, NUM_COEFFICIENTS))

    def push(self, features: SpeechFeatures) -> Float32:
        """Return the rows of the next frames."""
        relative = self._cepstra.push(cepstra(features.mel), features.speech_probability)
        return np.concatenate([self._content.push(features), relative], axis=-1)


class NetworkStep(NamedTuple):
    """One step of the network.

    Attributes:
        expression: float32 [E], coefficients in units of the person's spread.
        pose: float32 [6], in units of the person's spread.
        h: float32 [1, H], hidden state.
        c: float32 [1, H], cell state.
    """

    expression: Float32
    pose: Float32
    h: Float32
    c: Float32


class HeadModel(ExpressionModel):
    """Network and constants. The caller holds the state of the LSTM.

    Attributes, beside those of ExpressionModel:
        past, ahead: context frames of a step before and after its own frame.
        hidden: H, size of the state.
        mean_motion: float32 [59, 3], mean mouth less rest mouth of the training speakers, for people with one frame of footage.
        general: how the training speakers' heads move.
        rhythm: statistics of the signals on the training clips.
    """

    network_file = "audio_to_head_motion.onnx"
    constants_file = "head_motion_constants.safetensors"

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """See ExpressionModel."""
        super().__init__(folder, threads)
        named = self.constants
        self.past, self.ahead = int(named.metadata["past"]), int(named.metadata["ahead"])
        self.hidden = int(named.metadata["hidden"])
        self.mean_motion: Float32 = named["mean_motion"]
        self.general = general_head(named)
        self.rhythm = rhythm_constants(named)

    @property
    def window(self) -> int:
        """Number of frames in the input window of a step."""
        return self.past + 1 + self.ahead

    def rest(self) -> Float32:
        """Return the state before the first step, float32 [1, H]; h and c are both this."""
        return np.zeros((1, self.hidden), np.float32)

    def step(self, window: Float32, h: Float32, c: Float32) -> NetworkStep:
        """Run one step of Eq. 1.

        Each call runs one frame: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [W, 4, 65], see input_rows. The network takes the cepstra.
            h: float32 [1, H], hidden state after the step before.
            c: float32 [1, H], cell state after the step before.
        """
        mfcc = np.ascontiguousarray(window[None, ..., NUM_CONTENT:])
        expression, pose, next_h, next_c = run(self._network, window=mfcc, h=h, c=c)
        return NetworkStep(expression[0, 0], pose[0, 0], next_h, next_c)


def _exact(named: NamedArrays, name: str) -> Float64:
    return np.asarray(named[name], np.float64)


def general_head(named: NamedArrays) -> HeadStyle:
    """Return the general speaker in the constants, about a pose of zeros and scale 1."""
    reference = np.zeros(POSE_SIZE)
    reference[5] = 1.0
    return HeadStyle(reference, _exact(named, "pose_quantiles"), _exact(named, "pose_mixing"), _exact(named, "pose_steps"))


def rhythm_constants(named: NamedArrays) -> RhythmConstants:
    """Return the statistics of the signals in the constants."""
    return RhythmConstants(
        _exact(named, "pose_mean"),
        _exact(named, "pose_scale"),
        float(named["loudness"][0]),
        float(named["loudness"][1]),
        _exact(named, "content_mean"),
        _exact(named, "projection"),
        _exact(named, "autocovariance"),
    )


def head_style_arrays(style: HeadStyle) -> dict[str, Float32]:
    """Return the head's arrays of the style artefact by name."""
    values = (style.reference, style.quantiles, style.mixing, style.steps)
    return {name: value.astype(np.float32) for name, value in zip(_HEAD_ARRAYS, values, strict=True)}


def head_style_of(style: Style) -> HeadStyle:
    """Return how the person of a style holds and moves the head.

    Raises:
        InvalidRequestError: the style was encoded without head poses, or is damaged.
    """
    if any(name not in style.added for name in _HEAD_ARRAYS):
        raise InvalidRequestError(
            "style: the style does not tell how the head moves: encode it for a method that moves the head, with head_poses",
            field="style",
        )
    reference, quantiles, mixing, steps = (np.asarray(style.added[name], np.float64) for name in _HEAD_ARRAYS)
    sound = MIN_SCALE / 2.0 <= reference[5] <= MAX_SCALE * 2.0 and np.abs(quantiles[5]).max() <= _MAX_LOG
    if not sound or np.linalg.cond(mixing) > _MAX_CONDITION or (np.diff(quantiles, axis=1) < 0.0).any():
        raise InvalidRequestError("style: the arrays of the head's movement are damaged: encode the style anew", field="style")
    return HeadStyle(reference, quantiles, mixing, steps)


def rhythm_of(style: Style, models: MotionModels) -> Rhythm:
    """Return how the person's head scores follow the speech.

    Raises:
        InvalidRequestError: see head_style_of.
    """
    weights = style.added.get(WEIGHTS_ARRAY)
    used = general_weights() if weights is None else np.asarray(weights, np.float64)
    return tuned(used, head_style_of(style).steps, HeadModel.of(models).rhythm)


def encode_head_style(footage: Footage, models: MotionModels) -> Style:
    """Return the style of a person from tracked footage, or from one still frame.

    Args:
        footage: T frames with head poses. T = 1: the mean speaker's style about this mouth and pose.

    Raises:
        NoUsableFootageError: more than one frame, but fewer than 25 usable frames; or the only frame is not usable.
    """
    assert footage.head_poses is not None, "a predictor that moves the head gets head poses"
    general = HeadModel.of(models).general
    if len(footage.usable) != 1:
        style = encode_mouths(footage, models)
        return style.adding(**head_style_arrays(measure_head(footage.head_poses, footage.usable, general)))
    if not footage.usable[0]:
        raise NoUsableFootageError("the footage is one frame, and this frame cannot be used", subject="mouth_landmarks")
    still = _still_style(footage.mouth_landmarks[0], models)
    return still.adding(**head_style_arrays(still_head(footage.head_poses[0], general)))


def _still_style(mouth: Float32, models: MotionModels) -> Style:
    """Return the mean speaker's style about one mouth [59, 3]: rest mouth of STILL_REST_PX, movement times STILL_GAIN.

    A smile stays in pauses. In speech its width goes a part of the way to that of speakers: a mouth drawn wide shows no vowels.
    """
    closed = shut_lips(mouth)
    opening = models.basis.components[0]
    unit = float(mouth_opening(closed + opening) - mouth_opening(closed)) or 1.0
    # Lips that overlap have a positive opening too, so the rest mouth is measured open.
    wide = closed + _narrower(closed, models.basis) + np.float32(3.0 * STILL_REST_PX / unit) * opening
    rest = wide + np.float32((STILL_REST_PX - float(mouth_opening(wide))) / unit) * opening
    return replace(
        models.neutral_style(),
        mean_mouth=(rest + STILL_GAIN * HeadModel.of(models).mean_motion).astype(np.float32),
        rest_mouth=rest.astype(np.float32),
        closed_mouth=closed.astype(np.float32),
        spread=(STILL_GAIN * models.basis.typical_spread).astype(np.float32),
    )


def _narrower(mouth: Float32, basis: LandmarkBasis) -> Float32:
    """Return what takes a mouth [59, 3] by SMILE_LOST of the way to WIDEST_SPEAKING_PX if it is wider, float32 [59, 3]:
    the least movement, in units of the typical spread, without the opening component."""
    steps = basis.components[1:] * basis.typical_spread[1:, None, None]
    widths = lip_width(mouth + steps) - lip_width(mouth)
    change = SMILE_LOST * min(WIDEST_SPEAKING_PX - np.float32(lip_width(mouth)), np.float32(0.0))
    return np.asarray(np.einsum("k,kpd->pd", change * widths / max(float(widths @ widths), 1e-6), steps), np.float32)


def mean_head_speaker(style: Style, models: MotionModels) -> Style:
    """Return the style for the ablation: mouth and head of the mean training speaker about the person's rest mouth and pose.

    Raises:
        InvalidRequestError: see head_style_of.
    """
    own = head_style_of(style)
    general = still_head(own.reference, HeadModel.of(models).general)
    return models.mean_speaker(style).adding(**head_style_arrays(general))


class HeadStream:
    """Network and head poses of one person in a stream.

    Attributes:
        model: the network.
    """

    def __init__(self, models: MotionModels, style: Style) -> None:
        """Start at the first frame.

        Raises:
            InvalidRequestError: the style does not tell how the head moves.
        """
        self.model = HeadModel.of(models)
        self._poses = PoseMap(head_style_of(style))
        self._signals = SignalStream(self.model.rhythm)
        self._scores = ScoreStream(rhythm_of(style, models))
        self._h, self._c = self.model.rest(), self.model.rest()

    def push(self, window: Float32, speech_probability: float) -> tuple[NetworkStep, Float64]:
        """Return the network's step of the next frame, and the head-pose vector of the frame, float64 [6].

        Args:
            window: float32 [W, 4, 65], see input_rows.
        """
        step = self.model.step(window, self._h, self._c)
        self._h, self._c = step.h, step.c
        row = self._signals.push(step.pose, content_of(window[self.model.past]), speech_probability)
        return step, self._poses.pose(self._scores.push(row, speech_probability))

    def arrays(self) -> dict[str, Array]:
        """Return the state before the next frame."""
        return {"head.signals": self._signals.array(), **self._scores.arrays(), "head.lstm": np.stack([self._h, self._c])}

    def resume(self, arrays: Mapping[str, Array]) -> None:
        """Go on as the stream whose `arrays` these are."""
        self._signals.resume(arrays["head.signals"])
        self._scores.resume(arrays)
        self._h, self._c = arrays["head.lstm"]


class HeadPredictor(ExpressionPredictor):
    """Predictor that moves head and mouth of one person. Predictors differ in the mouth.

    Attributes:
        head: network and head poses.
    """

    def __init__(
        self, models: MotionModels, style: Style, constraints: ConstraintConfig | None, inputs: Float32, ahead: int
    ) -> None:
        """Start at the first frame. Arguments: see ExpressionPredictor.

        Raises:
            InvalidRequestError: the style does not tell how the head moves.
        """
        super().__init__(HeadModel.of(models), models, style, constraints, inputs, ahead)
        self.head = HeadStream(models, style)
        self._stream = SpeechInputStream()

    def arrays(self) -> dict[str, Array]:
        """See services.motion.person_predictor.PersonPredictor."""
        return {**super().arrays(), **self.head.arrays()}

    def resume(self, next_frame: int, arrays: Mapping[str, Array]) -> None:
        """See services.motion.person_predictor.PersonPredictor."""
        super().resume(next_frame, arrays)
        self.head.resume(arrays)

    def _moved(self, first: int, rows: Float32, speaking: Float32, mouth_of: Callable[[int, NetworkStep], Float32]) -> Motion:
        """Return the motion of the grid frames `first` .. first + R - 1, before constraints.

        Args:
            first: as PersonPredictor._predict takes it, as is `speaking`.
            rows: float32 [P + R + A, 4, 65], see input_rows.
            mouth_of: returns the mouth of the r-th of these frames and of the network's step, float32 [59, 3].
        """
        model = self.head.model
        mouths, poses = [], []
        for index, probability in enumerate(speaking.tolist()):
            check_not_cancelled()
            frame = self._past + index
            step, pose = self.head.push(rows[frame - model.past : frame + model.ahead + 1], probability)
            mouths.append(mouth_of(index, step))
            poses.append(pose)
        return Motion(first, np.stack(mouths), speaking, None, np.stack(poses), blinks(np.arange(first, first + len(speaking))))


@dataclass(frozen=True, slots=True)
class HeadAnswers:
    """The network's answers for frames 0 .. T - 1 of a clip.

    Attributes:
        signals: float64 [T, 13], see head_motion.
        expression: float64 [T, E], coefficients in units of the person's spread.
        hidden: float64 [T, H], hidden state of the LSTM.
    """

    signals: Float64
    expression: Float64
    hidden: Float64


def head_answers(features: SpeechFeatures, num_frames: int, models: MotionModels) -> Generator[StyleStep, None, HeadAnswers]:
    """Run the network over the first frames of a clip.

    Args:
        num_frames: T, frames to run over.

    Yields:
        One step per 50 frames; one more step is due after the last frame.
    """
    model = HeadModel.of(models)
    rows = network_input(features, model.past, model.ahead)
    h, c, stream = model.rest(), model.rest(), SignalStream(model.rhythm)
    steps: list[NetworkStep] = []
    signals: list[Float64] = []
    for frame in range(num_frames):
        check_not_cancelled()
        steps.append(model.step(rows[frame : frame + model.window], h, c))
        h, c = steps[-1].h, steps[-1].c
        content = content_of(rows[model.past + frame])
        signals.append(stream.push(steps[-1].pose, content, float(features.speech_probability[frame])))
        if (frame + 1) % _CHUNK == 0:
            yield StyleStep(frame + 1, num_frames + 1, 1.0, None)
    return HeadAnswers(
        np.array(signals),
        np.array([step.expression for step in steps], np.float64),
        np.array([step.h[0] for step in steps], np.float64),
    )


def learned_head(
    signals: Float64,
    head: HeadStyle,
    features: SpeechFeatures,
    footage: Footage,
    frames: npt.NDArray[np.intp],
    models: MotionModels,
) -> dict[str, Float32]:
    """Return what footage teaches of the person's head: the arrays `pose_weights` and `pose_steps`.

    Args:
        signals: float64 [T, 13], see HeadAnswers.
        head: how the person holds and moves the head, see head_style_of.
        frames: indices of the frames to learn from, below T.
    """
    assert footage.head_poses is not None, "a predictor that moves the head gets head poses"
    last = len(signals)
    chosen, poses = np.isin(np.arange(last), frames), footage.head_poses[:last]
    weights = fit_weights(signals, independent_scores(poses, head), head.steps, chosen, models)
    steps = corrected_steps(signals, features.speech_probability[:last], poses, head, weights, chosen, models)
    return {WEIGHTS_ARRAY: weights.astype(np.float32), "pose_steps": steps.astype(np.float32)}


def fit_weights(signals: Float64, scores: Float64, steps: Float64, frames: Bool, models: MotionModels) -> Float64:
    """Return the weights of the signals for each score, float64 [6, 13].

    Args:
        signals: float64 [T, 13], signals.
        scores: float64 [T, 6], independent scores of the person's poses.
        steps: float64 [6], the person's pace.
        frames: bool [T], frames to learn from.
    """
    constants = HeadModel.of(models).rhythm
    general = tuned(general_weights(), steps, constants)
    weights = general.weights.copy()
    for axis in range(POSE_SIZE):
        inputs = slowed_down(signals, np.full(signals.shape[1], general.poles[axis]))[frames]
        inputs, target = inputs - inputs.mean(axis=0), scores[frames, axis] - scores[frames, axis].mean()
        trust = float(np.clip(_held_out_correlation(inputs, target), 0.0, _MAX_TRUST))
        solution = _ridge(inputs, target)
        size = float(np.std(inputs @ solution))
        if trust > 0.0 and size > 1e-6:
            weights[axis] = trust * solution / size + np.sqrt(1.0 - trust**2) * general.weights[axis]
    return weights


def corrected_steps(
    signals: Float64,
    speech_probability: Float32,
    poses: Float64,
    head: HeadStyle,
    weights: Float64,
    frames: Bool,
    models: MotionModels,
) -> Float64:
    """Return the pace with which the person's own speech moves the head as fast as the true head moved: float64 [6].

    Args:
        signals: float64 [T, 13], signals.
        speech_probability: float32 [T].
        poses: float64 [T, 6], true head-pose vectors.
        weights: float64 [6, 13], weights of the signals.
        frames: bool [T], frames to learn from.
    """
    stream, to_pose = ScoreStream(tuned(weights, head.steps, HeadModel.of(models).rhythm)), PoseMap(head)
    own_poses = np.stack([to_pose.pose(stream.push(row, float(p))) for row, p in zip(signals, speech_probability, strict=True)])
    together = frames[1:] & frames[:-1]
    if not together.any():
        return head.steps
    true_speed, own_speed = (
        np.abs(np.diff(relative_poses(each, head.reference), axis=0))[together].mean(axis=0) for each in (poses, own_poses)
    )
    factor = np.clip(true_speed / np.maximum(own_speed, 1e-9), *_PACE_RANGE)
    return np.asarray(np.clip(head.steps * factor, *STEP_RANGE), np.float64)


def _ridge(inputs: Float64, target: Float64) -> Float64:
    gram = inputs.T @ inputs
    if np.trace(gram) <= _SAME_SIGNALS * len(inputs):
        return np.zeros(len(gram))
    gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, inputs.T @ target))


def _held_out_correlation(inputs: Float64, target: Float64) -> float:
    """Return the correlation of blocks with their prediction from the other blocks."""
    predicted = np.empty_like(target)
    everything = np.arange(len(target))
    for block in np.array_split(everything, NUM_BLOCKS):
        keep = np.setdiff1d(everything, block)
        predicted[block] = inputs[block] @ _ridge(inputs[keep], target[keep])
    size = float(np.std(predicted) * np.std(target))
    return float(((predicted - predicted.mean()) * (target - target.mean())).mean() / size) if size > 1e-9 else 0.0
