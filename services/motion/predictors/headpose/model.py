"""The exported network of `headpose` in ONNX Runtime, with its constants."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from services.common.array_types import Float32, Float64
from services.common.face.head_pose_vectors import POSE_SIZE
from services.common.store.tensor_bytes import NamedArrays
from services.motion.expression_model import ExpressionModel
from services.motion.models import MotionModels
from services.motion.predictors.headpose.head_rhythm import RhythmConstants
from services.motion.predictors.headpose.head_style import HeadStyle
from services.motion.runtime import run
from services.motion.speech_map import FILES, SpeechMapModel

MOUTH: Final = FILES
"""Input of the speech map that moves the mouth."""
CORRECTION: Final = "headpose_mouth_correction"
"""Name of the style's array that corrects the map's mouth, float32 [K, 49 + K]."""


class NetworkStep(NamedTuple):
    """One step of the network: pose float32 [6] in units of the person's spread, state h and c [1, H]."""

    pose: Float32
    h: Float32
    c: Float32


class HeadposeModel(ExpressionModel):
    """Network and constants. The caller holds the state of the LSTM.

    Attributes, beside those of ExpressionModel:
        past, ahead: frames that a step hears before and after its own frame.
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

    @classmethod
    def version_of(cls, models: MotionModels) -> str:
        """Return the digests of the network and of the map that answers the mouth."""
        return f"{super().version_of(models)}-{SpeechMapModel.of(models).maps[MOUTH.feature].version}"

    @property
    def window(self) -> int:
        """Number of frames that a step hears."""
        return self.past + 1 + self.ahead

    def rest(self) -> Float32:
        """Return the state before the first step, float32 [1, H]; h and c are both this."""
        return np.zeros((1, self.hidden), np.float32)

    def step(self, window: Float32, h: Float32, c: Float32) -> NetworkStep:
        """Run one step of Eq. 1.

        Each call runs one frame: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [W, 4, 64], see inputs.heard_rows.
            h: float32 [1, H], hidden state after the step before.
            c: float32 [1, H], cell state after the step before.
        """
        pose, next_h, next_c = run(self._network, window=window[None], h=h, c=c)
        return NetworkStep(pose[0, 0], next_h, next_c)


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
