"""The exported network of `headpose` with its constants."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from services.common.head_pose_vectors import POSE_SIZE
from services.common.tensor_bytes import NamedArrays
from services.motion.head_rhythm import Float64, RhythmConstants
from services.motion.head_style import HeadStyle
from services.motion.predictor_model import PredictorModel
from services.motion.runtime import run
from services.motion.types import Float32

MODEL_FILE: Final = "audio_to_head_motion.onnx"
CONSTANTS_FILE: Final = "head_motion_constants.safetensors"


class Step(NamedTuple):
    """One step of the network: expression float32 [E] in units of the person's spread, pose float32 [6], state h and c [1, H]."""

    expression: Float32
    pose: Float32
    h: Float32
    c: Float32


class HeadMotionModel(PredictorModel):
    """Network and constants of the predictor `headpose`. The state is the caller's.

    Attributes, beside those of every PredictorModel:
        past, ahead: frames that a step hears before and after its own.
        mean_motion: float32 [59, 3], mean mouth less rest mouth of the training speakers: for people of whom there is one frame.
        general: how the training speakers' heads move.
        rhythm: what training measured of the signals.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Load.

        Args:
            folder: where the exported network lies.
            threads: threads inside one inference.

        Raises:
            ModelNotFound: a file is missing.
        """
        super().__init__(folder / MODEL_FILE, folder / CONSTANTS_FILE, threads, "services.motion.export_head_motion")
        named = self.constants
        self.past, self.ahead = int(named.metadata["past"]), int(named.metadata["ahead"])
        self.hidden = int(named.metadata["hidden"])
        self.mean_motion: Float32 = named["mean_motion"]
        self.general = general_head(named)
        self.rhythm = rhythm_constants(named)

    @property
    def window(self) -> int:
        """Frames that a step hears."""
        return self.past + 1 + self.ahead

    def rest(self) -> Float32:
        """State before the first step, float32 [1, H]; of h and of c."""
        return np.zeros((1, self.hidden), np.float32)

    def step(self, window: Float32, h: Float32, c: Float32) -> Step:
        """One step of Eq. 1; one frame a call, always: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            window: float32 [W, 4, 64], see cepstra.heard_rows.
            h: float32 [1, H], hidden state that the step before left.
            c: float32 [1, H], its cell state.
        """
        expression, pose, next_h, next_c = run(self._network, window=window[None], h=h, c=c)
        return Step(expression[0, 0], pose[0, 0], next_h, next_c)


def _exact(named: NamedArrays, name: str) -> Float64:
    return np.asarray(named[name], np.float64)


def general_head(named: NamedArrays) -> HeadStyle:
    """The general speaker in the constants; about a pose of zeros and scale 1."""
    reference = np.zeros(POSE_SIZE)
    reference[5] = 1.0
    return HeadStyle(reference, _exact(named, "pose_quantiles"), _exact(named, "pose_mixing"), _exact(named, "pose_steps"))


def rhythm_constants(named: NamedArrays) -> RhythmConstants:
    """The signals' constants."""
    return RhythmConstants(
        _exact(named, "pose_mean"),
        _exact(named, "pose_scale"),
        float(named["loudness"][0]),
        float(named["loudness"][1]),
        _exact(named, "content_mean"),
        _exact(named, "projection"),
        _exact(named, "autocovariance"),
    )
