"""The reference picture of an actor, as part of the actor's state: what this person's lower face looks like.

An actor's state has three parts: the numbers of the network's layers, the vector that is added to the reference picture's
appearance vector, and the reference picture.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import spread_rows

EMBEDDING_SIZE: Final = 64
"""Numbers of an appearance vector, e of the paper."""
NUM_REFERENCES: Final = 8
"""Pictures whose appearance vectors are averaged for an actor."""
STATE_SIZE: Final = BOX_SIZE * BOX_SIZE * 3
"""Numbers that the reference picture takes at the end of an actor's state."""
_SERVED: Final = 0.7
"""Place of the served reference picture among all openings of the mouth: open, so that teeth are seen."""
_MIDDLE: Final = 128.0


def choose_references(bank: MouthBank) -> npt.NDArray[np.intp]:
    """Return rows of a bank from a shut mouth to a wide one, int [N], 1 <= N <= NUM_REFERENCES, the served one first."""
    order = np.argsort(mouth_opening(bank.mouth), kind="stable")
    rows = spread_rows(order, NUM_REFERENCES)
    served = int(_SERVED * (len(rows) - 1) + 0.5)
    return np.concatenate([rows[served : served + 1], np.delete(rows, served)])


def packed(network_state: Float32, reference: UInt8) -> Float32:
    """Return an actor's state, float32 [S].

    Pixels are stored as offsets from mid-grey, so an all-zero state has a grey picture, in the light of the frame's cheeks.

    Args:
        network_state: float32 [S - STATE_SIZE], the part of the state that the network takes.
        reference: uint8 [160, 160, 3].
    """
    return np.concatenate([network_state, (reference.astype(np.float32).ravel() - _MIDDLE) / _MIDDLE]).astype(np.float32)


def unpacked(state: Float32) -> tuple[Float32, UInt8]:
    """Return the part of an actor's state that the network takes, and the reference picture; see `packed`."""
    network_state, pixels = np.split(state, [len(state) - STATE_SIZE])
    levels = np.clip(np.rint(pixels * _MIDDLE + _MIDDLE), 0.0, 255.0).astype(np.uint8)
    return network_state, levels.reshape(BOX_SIZE, BOX_SIZE, 3)


def with_other_reference(network_state: Float32) -> Float32:
    """Return the network's part of a state without the vector that belongs to the actor's own reference picture."""
    return np.concatenate([network_state[:-EMBEDDING_SIZE], np.zeros(EMBEDDING_SIZE, np.float32)])
