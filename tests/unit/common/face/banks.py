"""Drawn mouth banks, and windows of landmark sequences, as a stream of target frames gives them to a bank."""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float32
from services.common.face.actor_geometry import ANCHORS, measure_geometry
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.mouth_bank import WINDOW, MouthBank, make_bank

HEAD = head_template()
MOUTH = HEAD[list(MOUTH_AREA)]
AMOUNTS = 6 + 6 * np.sin(np.arange(60) ** 1.3 / 4)


def opened(amounts: np.ndarray) -> np.ndarray:
    """Mouths whose lower half is pulled down by so many pixels: float32 [F, 59, 3]."""
    mouths = np.repeat(MOUTH[None], len(amounts), axis=0)
    lower = MOUTH[:, 1] > 0
    mouths[:, lower, 1] += amounts[:, None]
    return mouths.astype(np.float32)


def bank_of(mouth: np.ndarray, index: np.ndarray | None = None, rotation: np.ndarray | None = None) -> MouthBank:
    count = len(mouth)
    anchors = np.repeat(HEAD[None, list(ANCHORS)], count, axis=0)
    boxes = np.zeros((count, 160, 160, 3), np.uint8)
    boxes += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return make_bank(
        boxes,
        mouth,
        np.repeat(np.eye(3)[None], count, axis=0) if rotation is None else rotation,
        np.arange(count) if index is None else index,
        measure_geometry(mouth, anchors),
    )


def causal_windows(target: Float32, context: int = 0) -> Float32:
    """Windows t - 5 .. t of a landmark sequence: float32 [T - context, 6, 59, 3].

    Args:
        target: float32 [T, 59, 3], head space.
        context: how many frames at the beginning are past context and get no window of their own. Where the past is
            shorter than five frames the first frame is repeated before the first frame.
    """
    ends = np.arange(context, len(target))
    return np.asarray(target[np.maximum(ends[:, None] + np.arange(1 - WINDOW, 1), 0)], dtype=np.float32)
