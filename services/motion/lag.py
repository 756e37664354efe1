"""Agreement of the sound and the mouth of a clip: the lag, at which the two correlate best, and the sync distance.

Lag: a canonical correlation analysis of the training clips (Hotelling 1936; research/motion/lag.py) gives D pairs of filters whose
outputs correlate most: one filter of each pair takes states of the speech encoder, the other takes mouth coefficients.

    a_n = A (s_{n-3}, ..., s_{n+3})          m_n = B (c_{n-4}, ..., c_{n+4})
    score of a lag = sum_d w_d r_d,          r_d = Pearson's r of a_{n + lag, d} and m_{n, d} over the clip

w_d is rho_d / (1 - rho_d^2), divided by the sum over all pairs, with rho_d the pair's correlation in training: the slope of the
log-likelihood ratio between "sound and mouth belong together" and "sound and mouth do not", for Gaussian variables.

Sync distance: the mean distance between the sync network's embeddings of sound and mouth (Song et al. 2023, Sec. IV). Reports show
the distance of dubs. The sync network takes posteriorgrams, and no predictor learns from the network, so the distance does not
favour a predictor that takes the states which the lag is measured with (docs/models/sync.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np

from services.common.array_types import Bool, Float32, Float64, Floating
from services.common.errors import NoUsableFootageError
from services.common.face.landmarks import never_open
from services.motion.basis import LandmarkBasis
from services.motion.features import sync_rows
from services.motion.runtime import read_constants, shaped
from services.motion.types import EXTRA_FEATURES, MAX_LAG, LagEstimate, SpeechFeatures

LAG_FILE: Final = "lag.safetensors"
LAG_STATES: Final = "speech_states"
"""Tensor of AudioFeatureBlock that a lag is measured with."""
MIN_FRAMES = 2 * MAX_LAG
"""Fewest usable frames of a lag: at the largest lag, half of the frames still form pairs."""

MIN_SPOKEN = 12
"""Fewest frames with speech of a lag. Any other sound belongs to no mouth."""
_SPEECH = 0.5
"""Speech probability from which on a frame has speech."""
SOUND_AROUND: Final = 3
"""Frames of states before and after a frame in the window of the filters of sound."""
MOUTH_AROUND: Final = 4
"""Frames of coefficients before and after a frame in the window of the filters of the mouth."""


@dataclass(frozen=True)
class LagModel:
    """Filters of sound and mouth.

    Attributes:
        basis: landmark basis of the coefficients.
        sound: float32 [D, 7 * 192], A; the first frame comes first.
        mouth: float32 [D, 9 * K], B; the first frame comes first.
        weight: float32 [D], w; the sum is 1.
    """

    basis: LandmarkBasis
    sound: Float32
    mouth: Float32
    weight: Float32

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read lag.safetensors in a folder of weights.

        Raises:
            ModelNotFoundError: the file is missing.
            ArtefactCorruptError: the file is damaged.
        """
        named = read_constants(folder / LAG_FILE)
        basis = LandmarkBasis.named(named)
        widths = {
            "sound": (2 * SOUND_AROUND + 1) * EXTRA_FEATURES[LAG_STATES][0],
            "mouth": (2 * MOUTH_AROUND + 1) * len(basis.typical_spread),
        }
        pairs = len(named.arrays.get("weight", ()))
        shapes = {"weight": (pairs,), **{name: (pairs, width) for name, width in widths.items()}}
        remedy = "fit the filters again (python -m research.motion.lag)"
        return cls(basis, **shaped(named.arrays, shapes, folder / LAG_FILE, remedy))

    @cached_property
    def version(self) -> str:
        """First 12 digits of the SHA-256 of A, B and w."""
        return hashlib.sha256(self.sound.tobytes() + self.mouth.tobytes() + self.weight.tobytes()).hexdigest()[:12]

    def arrays(self) -> dict[str, Float32]:
        """Return the arrays of the file, by name."""
        return {**self.basis.arrays(), "sound": self.sound, "mouth": self.mouth, "weight": self.weight}

    def scores(self, states: Float32, mouth_landmarks: Float32, usable: Bool) -> Float32:
        """Return the score of each lag from -15 to 15: float32 [31].

        Args:
            states: float32 [T, 192], states of the speech encoder.
            mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
            usable: bool [T], with at least one usable frame.
        """
        sound = _filtered(states, self.sound)
        mouth = _filtered(standardised(mouth_landmarks, usable, self.basis), self.mouth)
        return np.asarray(correlations_at_lags(sound, mouth, usable) @ self.weight, np.float32)


def standardised(mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis) -> Float32:
    """Return coefficients about the clip's mean in units of the clip's own spread, float32 [T, K]; 0 on unusable frames.

    The spread is at least a third of the typical spread, so that a face that does not move is not blown up.
    """
    coefficients = basis.project(mouth_landmarks - mouth_landmarks[usable].mean(axis=0))
    spread = np.maximum(coefficients[usable].std(axis=0), basis.typical_spread / 3.0)
    return np.where(usable[:, None], coefficients / spread, 0.0).astype(np.float32)


def _filtered(rows: Float32, filters: Float32) -> Float32:
    """Return the outputs of filters over neighbouring rows: [T, N], [D, W * N], W odd -> [T, D]. Zeros surround the clip."""
    length, size = rows.shape
    width = filters.shape[1] // size
    padded = np.pad(rows, ((width // 2, width // 2), (0, 0)))
    taps = filters.reshape(len(filters), width, size)
    return np.asarray(sum(padded[step : step + length] @ taps[:, step].T for step in range(width)), np.float32)


def paired_at(lag: int, length: int) -> tuple[slice, slice]:
    """Return the frames of the sound and of the picture that belong together at a lag, for T = `length` frames of each."""
    begin, end = max(0, -lag), min(length, length - lag)
    return slice(begin + lag, end + lag), slice(begin, end)


def correlations_at_lags(sound_signals: Floating, mouth_signals: Floating, usable: Bool) -> Float64:
    """Return Pearson's r of sound at n + lag and mouth at n, for lags -15..15: [T, D], [T, D], bool [T] -> float64 [31, D].

    The r of a lag covers the usable mouths whose sound lies inside the clip; r is 0 if there are fewer than two.
    """
    correlations = np.zeros((2 * MAX_LAG + 1, mouth_signals.shape[1]))
    for index, lag in enumerate(range(-MAX_LAG, MAX_LAG + 1)):
        of_sound, of_picture = paired_at(lag, len(mouth_signals))
        keep = usable[of_picture]
        if keep.sum() < 2:
            continue
        sound, mouth = (part[keep].astype(np.float64) for part in (sound_signals[of_sound], mouth_signals[of_picture]))
        sound, mouth = sound - sound.mean(axis=0), mouth - mouth.mean(axis=0)
        norm = np.sqrt((sound**2).sum(axis=0) * (mouth**2).sum(axis=0))
        correlations[index] = (sound * mouth).sum(axis=0) / np.maximum(norm, 1e-9)
    return correlations


def estimate_lag(features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, model: LagModel) -> LagEstimate:
    """Return the lag of a clip.

    Args:
        features: of T frames, with the states of the speech encoder.
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
        usable: bool [T].
        model: the filters.

    Raises:
        NoUsableFootageError: fewer than 30 usable frames, a mouth that never opens, or speech on fewer than 12 frames.
    """
    if int(usable.sum()) < MIN_FRAMES:
        raise NoUsableFootageError(
            f"a lag needs {MIN_FRAMES} usable frames (1.2 s), the footage has {int(usable.sum())}", subject="mouth_landmarks"
        )
    if never_open(mouth_landmarks[usable]):
        raise NoUsableFootageError("a lag needs a mouth that opens, and the footage shows none", subject="mouth_landmarks")
    spoken = int((features.speech_probability >= _SPEECH).sum())
    if spoken < MIN_SPOKEN:
        raise NoUsableFootageError(
            f"a lag needs {MIN_SPOKEN} frames with speech (half a second), the sound has {spoken}", subject="speech_probability"
        )
    scores = model.scores(features.extra[LAG_STATES], mouth_landmarks, usable)
    best = int(scores.argmax())
    return LagEstimate(best - MAX_LAG, float(scores[best] - np.median(scores)), scores, peak_fraction(scores, best))


def peak_fraction(scores: Float32, best: int) -> float:
    """Return how far the peak of scores lies from a score, in frames, to the nearest quarter: -1/2 to 1/2.

    The peak is the maximum of the parabola through the score and its neighbours. The fraction is 0 at either end of the scores,
    where a neighbour is missing, and where the parabola has no maximum.

    Args:
        scores: float32 [N], scores of consecutive lags.
        best: index of the best score, or of the lag that counts as the best.
    """
    if not 0 < best < len(scores) - 1:
        return 0.0
    before, peak, after = scores[best - 1 : best + 2].astype(np.float64)
    bend = before - 2.0 * peak + after
    if bend >= 0.0:
        return 0.0
    fraction = 0.5 * (before - after) / bend
    return round(4.0 * float(min(max(fraction, -0.5), 0.5))) / 4.0


class SyncModel(Protocol):
    """Both encoders of the sync network, in ONNX Runtime or PyTorch."""

    def embed_audio(self, rows: Float32) -> Float32:
        """Return embeddings of sync rows: float32 [T, 4, 25] -> unit rows [T, E]."""
        ...

    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Return embeddings of coefficients in units of the clip's spread: float32 [T, K] -> unit rows [T, E]."""
        ...


def embeddings(
    features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, model: SyncModel
) -> tuple[Float32, Float32]:
    """Return the embeddings of sound and of mouth, unit rows float32 [T, E] each.

    Args:
        features: of T frames.
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
        usable: bool [T], with at least one usable frame.
        basis: landmark basis of the sync network.
    """
    return model.embed_audio(sync_rows(features)), model.embed_mouth(standardised(mouth_landmarks, usable, basis))


def similarities_at_lags(audio: Float32, mouth: Float32, usable: Bool) -> Float32:
    """Return the mean cosine similarity of sound at n + lag and mouth at n, for lags -15..15: float32 [31]."""
    scores = np.zeros(2 * MAX_LAG + 1, np.float32)
    for index, lag in enumerate(range(-MAX_LAG, MAX_LAG + 1)):
        of_sound, of_picture = paired_at(lag, len(mouth))
        keep = usable[of_picture]
        if keep.any():
            scores[index] = (audio[of_sound] * mouth[of_picture]).sum(axis=-1)[keep].mean()
    return scores


def sync_distance(
    features: SpeechFeatures, mouth_landmarks: Float32, usable: Bool, basis: LandmarkBasis, model: SyncModel
) -> float:
    """Return the mean Euclidean distance of the embeddings over the usable frames, 0 to 2, at the lag of least distance.

    Arguments: see `embeddings`.
    """
    audio, mouth = embeddings(features, mouth_landmarks, usable, basis, model)
    lag = int(similarities_at_lags(audio, mouth, usable).argmax()) - MAX_LAG
    of_sound, of_picture = paired_at(lag, len(mouth))
    return float(np.linalg.norm(audio[of_sound] - mouth[of_picture], axis=-1)[usable[of_picture]].mean())
