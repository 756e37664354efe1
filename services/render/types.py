"""Types of the render stage. Pictures are RGB, 160 x 160, in render-box pixels (docs/coordinates.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


class Precision(StrEnum):
    """What a backend computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, eq=False)
class RenderFrame:
    """What one frame is rendered from.

    Attributes:
        frame_index: place in the stream; comes back with the picture.
        background: uint8 [160, 160, 3], the footage's own render box; what the mask covers is never looked at.
        texture: uint8 [160, 160, 3], the warped texture; None: not given, `everybody` needs none.
        mask: uint8 [160, 160], lower-face mask, 255 = to be replaced.
        box_landmarks: float32 [59, 2], wanted mouth-area landmarks, box pixels.
        context_only: the frame is the past of those that follow and gets no answer.
    """

    frame_index: int
    background: UInt8
    texture: UInt8 | None
    mask: UInt8
    box_landmarks: Float32
    context_only: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RenderedFrame:
    """The picture of one frame.

    Attributes:
        frame_index: of the frame that it answers.
        box: uint8 [160, 160, 3]: the new lower face where the mask is above 0, the background elsewhere. It is not blended yet.
        mask: uint8 [160, 160], weight of `box` in the blend; never above the mask that came.
    """

    frame_index: int
    box: UInt8
    mask: UInt8


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that is loaded.

    Attributes:
        name: what a request calls it.
        sha256: of the network's file, hexadecimal.
        backend: runtime that computes it.
        precision: of its arithmetic.
        num_threads: of one inference.
        state_size: length of an actor's state.
    """

    name: str
    sha256: str
    backend: str
    precision: Precision
    num_threads: int
    state_size: int


@dataclass(frozen=True, slots=True, eq=False)
class PersonalizeProgress:
    """One report of a personalisation.

    Attributes:
        step: steps done.
        num_steps: steps in all.
        loss: mean absolute error inside the mask since the last report, grey levels.
        state: float32 [S], the actor's state so far; what the last report holds is the result.
    """

    step: int
    num_steps: int
    loss: float
    state: Float32
