"""Actor's state of `everyone`: the offset of the style vector W, then the reference picture. The texture is an array of its own."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import MouthBank

_SHAPE: Final = (BOX_SIZE, BOX_SIZE, 3)
REFERENCE_SIZE: Final = BOX_SIZE * BOX_SIZE * 3
"""Numbers that the reference picture takes at the end of an actor's state."""
_MIDDLE: Final = 128.0
_REFERENCE_QUANTILE: Final = 0.8


def packed(style: Float32, reference: UInt8) -> Float32:
    """Return an actor's state, float32 [S + REFERENCE_SIZE]. Zeros stand for a grey reference picture.

    Args:
        style: float32 [S], offset of W.
        reference: uint8 [160, 160, 3].
    """
    return np.concatenate([style, (reference.astype(np.float32).ravel() - _MIDDLE) / _MIDDLE]).astype(np.float32)


def unpacked(state: Float32) -> tuple[Float32, UInt8]:
    """Return the offset of W, float32 [S], and the reference picture, uint8 [160, 160, 3], of a state that `packed` made."""
    style, picture = np.split(state, [len(state) - REFERENCE_SIZE])
    levels = np.clip(np.rint(picture * _MIDDLE + _MIDDLE), 0.0, 255.0).astype(np.uint8)
    return style, levels.reshape(_SHAPE)


def reference_row(bank: MouthBank) -> int:
    """Return the row of the bank's reference picture: an open mouth, which shows teeth, but not the widest."""
    order = np.argsort(mouth_opening(bank.mouth), kind="stable")
    return int(order[int(_REFERENCE_QUANTILE * (len(order) - 1))])
