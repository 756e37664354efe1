"""The motion predictor `ugc` (UGC paper, Sec. III-A and III-C), and its personalisation.

**Memory.** Minutes of footage add a memory of the person's own moments to the linear correction of the coefficients:

    c' = c + C p + W k,     k_m = exp(-|p - p_m|^2 / s)

p is the pooled speech around the frame, p_m that of NUM_MOMENTS frames of the person's footage. So the person's mouth at a sound is
remembered together with the sounds around it, which a linear correction cannot. This is a kernel ridge regression on NUM_MOMENTS
centres (Williams and Seeger 2000, Nystroem's method). In some seconds of footage no two moments are alike, so a memory of seconds
holds nothing.

**Prediction.** Each frame n of the 25 frames/s grid is a pure function of the features of frames n - 32 .. n + 2, so the same
features in other pieces give the same bytes. A personalised style adds a correction, with p the speech of frames n - 6 .. n + 2
pooled over time:

    coefficients = network(window) + C p(window)        in units of the person's spread

A style that was personalised on minutes of footage also adds the memory.

**Personalisation** learns the correction from seconds or minutes of the person's footage. p is the speech around a frame, pooled
over time. C is a ridge regression from p on what the network misses (correction.py). Cross-validation over blocks of a second of
the footage chooses the ridge: if the person's sound explains little of what the network misses, the correction is small. The
solution has a closed form without random numbers. From 20 s of footage on, a memory of the person's moments is added if
cross-validation finds that less is missed with the memory.

A gain and an offset per coefficient reached less, and added nothing to the correction. A ridge regression on the last hidden
layer did not hold on other footage of the same person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.methods import PREDICTORS
from services.common.store.network_session import open_network
from services.motion.constraints import ConstraintConfig
from services.motion.correction import choose_ridge, fit_correction
from services.motion.features import NUM_POOLED, POOLED_PAST, ContentStream, content_before, content_rows, pooled_speech, silence
from services.motion.models import MotionModels
from services.motion.person_predictor import PersonPredictor, amplified, motion_of_windows
from services.motion.predictor import (
    PredictionErrors,
    Predictor,
    StyleStep,
    WindowPrediction,
    frames_to_learn_from,
    predict_in_blocks,
    true_coefficients,
)
from services.motion.runtime import run
from services.motion.style import Style
from services.motion.types import Footage, Motion, SpeechFeatures

WINDOW_PAST: Final = 32
"""Frames of features before the predicted frame."""
WINDOW_AHEAD: Final = 2
"""Frames of features after the predicted frame: 80 ms of look-ahead."""
WINDOW: Final = WINDOW_PAST + 1 + WINDOW_AHEAD
MODEL_FILE: Final = "motion.onnx"
NUM_MOMENTS: Final = 256
MOMENTS: Final = "landmark_moments"
"""Name of the style's array of p_m, float32 [256, 125]."""
MEMORY: Final = "landmark_memory"
"""Name of the style's array W, float32 [K, 256]."""
MIN_FRAMES: Final = 500
"""Fewest frames (20 s) that a memory is made from."""
_WIDTH: Final = 10.0
"""s, in squared units of the pooled speech: the median distance of two moments of six people."""
_SHARE: Final = 4.0
"""How much more than a unit of pooled speech a moment may weigh for the same ridge."""
_JITTER: Final = 1e-3
CORRECTION: Final = "landmark_correction"
"""Name of the style's array C, float32 [K, 126]. A style has this array once it is personalised for `ugc`."""
MAX_FRAMES: Final = 7500
"""Frames that a correction is learned from: five minutes of usable frames."""


def network_input(features: SpeechFeatures) -> Float32:
    """Return content rows of a whole clip of T frames with the silence around the clip: float32 [32 + T + 2, 4, 44]."""
    content = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
    return np.concatenate([content_before(WINDOW_PAST), content])


def pooled_content(window: Float32) -> Float32:
    """Return the pooled speech of a window of content rows [35, 4, 44]: float32 [126], the last number 1."""
    return pooled_speech(window[WINDOW_PAST - POOLED_PAST :], POOLED_PAST)


class UgcModel:
    """Motion network of `ugc`. The network's basis is MotionModels.basis. Calls from several threads are safe."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the network.

        Args:
            threads: threads inside one inference.

        Raises:
            ModelNotFoundError: the file is missing.
            ArtefactCorruptError: the file is damaged.
        """
        self._network = open_network(folder / MODEL_FILE, threads)

    @classmethod
    def of(cls, models: MotionModels) -> UgcModel:
        """Return the model that belongs to the shared networks; the first call loads the model."""
        return models.own(cls)

    def predict(self, content: Float32, modulation: Float32) -> Float32:
        """Return the motion of one window's frame: coefficients float32 [K] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            content: float32 [35, 4, 44], see features.content_rows.
            modulation: float32 [L, 2, C], modulation of the style.
        """
        coefficients: Float32 = run(self._network, content=content[None], modulation=modulation[None])[0][0]
        return coefficients


def remembered(pooled: Float32, style: Style) -> Float32 | None:
    """Return W k of a frame, float32 [K], in units of the person's spread; None: the style has no memory.

    Args:
        pooled: float32 [126], pooled speech of the frame; the last number is 1.
    """
    moments, weights = style.added.get(MOMENTS), style.added.get(MEMORY)
    if moments is None or weights is None:
        return None
    return np.asarray(weights @ _nearness(pooled[None, :-1], moments)[0], np.float32)


class Memory(NamedTuple):
    """A correction with a memory.

    Attributes:
        slopes: float32 [K, 126], the linear correction beside the memory, with the offset in the last column.
        moments: float32 [256, 125], p_m.
        weights: float32 [K, 256], W.
        loss: squared error that remains on held-out blocks, relative to no correction.
    """

    slopes: Float32
    moments: Float32
    weights: Float32
    loss: float


def learned_memory(errors: PredictionErrors, weight: Float64, loss: float) -> Memory | None:
    """Return the correction with a memory; None: cross-validation finds that the memory does not help, or the footage is short.

    Args:
        errors: errors of the network on the person's footage.
        weight: float64 [K], weight of the squared error of each coefficient.
        loss: squared error that the linear correction leaves on held-out blocks (RidgeChoice.loss).
    """
    count = len(errors.pooled)
    if count < MIN_FRAMES:
        return None
    pooled = errors.pooled[:, :-1]
    moments = pooled[np.linspace(0, count - 1, NUM_MOMENTS).round().astype(int)].astype(np.float32)
    # In whitened coordinates, the ridge on W k is the norm of the kernel's function space.
    values, vectors = np.linalg.eigh(_nearness(moments, moments) + _JITTER * np.eye(NUM_MOMENTS))
    whitening = _SHARE * vectors / np.sqrt(values)
    inputs = np.concatenate([pooled, _nearness(pooled, moments) @ whitening, errors.pooled[:, -1:]], axis=1)
    choice = choose_ridge(inputs, errors.residual, weight)
    if choice.loss >= loss:
        return None
    solution = fit_correction(inputs, errors.residual, choice.ridge).astype(np.float64)
    slopes, weights = solution[:, [*range(NUM_POOLED - 1), -1]], solution[:, NUM_POOLED - 1 : -1] @ whitening.T
    return Memory(slopes.astype(np.float32), moments, weights.astype(np.float32), choice.loss)


def _nearness(pooled: Float32 | Float64, moments: Float32) -> Float64:
    """Return k of frames, float64 [T, M]: pooled [T, 125], moments [M, 125]."""
    inputs, centres = np.asarray(pooled, np.float64), np.asarray(moments, np.float64)
    squared = (inputs**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)[None] - 2.0 * inputs @ centres.T
    return np.asarray(np.exp(-np.maximum(squared, 0.0) / _WIDTH))


def landmarks_of_frame(content: Float32, style: Style, models: MotionModels, voiced: float = 1.0) -> Float32:
    """Return the mouth of a window of content rows [35, 4, 44]: float32 [59, 3], full size, before constraints.

    Args:
        content: the rows.
        voiced: share of the person's correction, 0 to 1.
    """
    coefficients = UgcModel.of(models).predict(content, style.modulation)
    correction = style.added.get(CORRECTION)
    if correction is not None:
        pooled = pooled_content(content)
        coefficients = coefficients + np.float32(voiced) * (correction @ pooled)
        memory = remembered(pooled, style)
        if memory is not None:
            coefficients = coefficients + np.float32(voiced) * memory
    return style.rest_mouth + models.basis.reconstruct((coefficients * style.spread).astype(np.float32))


class UgcPredictor(PersonPredictor):
    """The predictor `ugc` of one person, with two frames of features after a frame."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None = None) -> None:
        """Start at the first frame. Arguments: see services.motion.predictor.Predictor.open."""
        super().__init__(style, constraints, content_before(WINDOW_PAST), WINDOW_AHEAD)
        self._models = models
        self._contents = ContentStream()

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return self._contents.push(features)

    def _predict(self, first: int, inputs: Float32, speaking: Float32, voiced: Float32) -> Motion:
        return motion_of_windows(first, inputs, speaking, voiced, WINDOW, self._mouth)

    def _mouth(self, window: Float32, voiced: float) -> Float32:
        return amplified(landmarks_of_frame(window, self._style, self._models, voiced), self._style)


def personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    """Refine a style for `ugc`. Arguments and errors: see services.motion.predictor.Predictor.

    Yields:
        One step per block of frames, then the refined style. The loss of the last step is the loss on held-out blocks
        (correction.choose_ridge).
    """
    frames = frames_to_learn_from(footage.usable, MAX_FRAMES)
    rows, model = network_input(features), UgcModel.of(models)
    target = true_coefficients(footage, frames, style, models.basis, style.spread)

    def predict(frame: int) -> WindowPrediction:
        window = rows[frame : frame + WINDOW]
        return WindowPrediction(model.predict(window, style.modulation), pooled_content(window))

    errors = yield from predict_in_blocks(frames, target, predict)
    weight = style.spread.astype(np.float64) ** 2
    choice = choose_ridge(errors.pooled, errors.residual, weight)
    memory = learned_memory(errors, weight, choice.loss)
    if memory is None:
        learned = {CORRECTION: fit_correction(errors.pooled, errors.residual, choice.ridge)}
    else:
        learned = {CORRECTION: memory.slopes, MOMENTS: memory.moments, MEMORY: memory.weights}
    loss = choice.loss if memory is None else memory.loss
    kept = {name: array for name, array in style.added.items() if name not in (CORRECTION, MOMENTS, MEMORY)}
    refined = replace(style, added={**kept, **learned})
    yield StyleStep(len(frames) + 1, len(frames) + 1, min(loss, 1.0), refined)


PREDICTOR: Final = Predictor(
    spec=PREDICTORS["ugc"],
    version=lambda models: models.version,  # the motion network of `ugc` is exported together with the shared networks
    open=UgcPredictor,
    personalize=personalize,
    style_arrays={
        CORRECTION: lambda models: (models.num_coefficients, NUM_POOLED),
        MOMENTS: lambda _: (NUM_MOMENTS, NUM_POOLED - 1),
        MEMORY: lambda models: (models.num_coefficients, NUM_MOMENTS),
    },
)
