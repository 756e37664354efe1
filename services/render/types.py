"""Types of the render stage. Pictures are RGB in render-box pixels (docs/coordinates.md).

The render box is square: BOX_SIZE (160) pixels a side, or a whole multiple of BOX_SIZE that the model was exported for. Docstrings
write H and W for the sides of the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from services.common.array_types import Float32, UInt8

if TYPE_CHECKING:
    # The image of Triton writes its models without the contracts, which the table of methods needs.
    from services.common.methods import RendererSpec


class Precision(StrEnum):
    """Number format that a backend computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, eq=False)
class RenderFrame:
    """Input of one frame.

    Attributes:
        frame_index: index in the stream; the answer has the same index.
        background: uint8 [H, W, 3], the footage's own render box; no pixel under the mask is read.
        texture: uint8 [H, W, 3], see services.common.methods.TextureInput; None: not given.
        mask: uint8 [H, W], lower-face mask, 255 = to be replaced.
        box_landmarks: float32 [59, 2], target mouth-area landmarks, box pixels.
        context_only: the frame is a neighbour of frames that are wanted and gets no answer.
        speech_features: float32 [R, C], speech features of the frame: R rows of C features; None: not given.
        neural_features: float32 [H, W, C], features sampled from the actor's neural texture at each box pixel; None: not given.
    """

    frame_index: int
    background: UInt8
    texture: UInt8 | None
    mask: UInt8
    box_landmarks: Float32
    context_only: bool = False
    speech_features: Float32 | None = None
    neural_features: Float32 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RenderedFrame:
    """The picture of one frame.

    Attributes:
        frame_index: index of the frame that the picture answers.
        box: uint8 [H, W, 3]: the new lower face where the mask is above 0, the background elsewhere. The border is not blended.
    """

    frame_index: int
    box: UInt8


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model as ListModels describes it.

    Attributes:
        spec: the renderer's row in the table of methods.
        sha256: digest of the network's file, hexadecimal.
        backend: runtime that computes the network.
        precision: number format of the arithmetic.
        num_threads: threads of one inference.
        box_multiple: side of the render box in units of 160 pixels.
    """

    spec: RendererSpec
    sha256: str
    backend: str
    precision: Precision
    num_threads: int
    box_multiple: int


@dataclass(frozen=True, slots=True, eq=False)
class PersonalizeProgress:
    """One report of a personalisation.

    Attributes:
        step: steps done.
        loss: mean absolute error inside the mask since the last report, grey levels.
        state: float32 [S], the actor's state so far; the state of the last report is the result.
        texture: uint8 [256, 256, 16], the actor's neural texture so far (services/common/face/neural_texture.py); None: the
            renderer learns none. The texture of the last report is part of the result.
    """

    step: int
    num_steps: int
    loss: float
    state: Float32
    texture: UInt8 | None = None
