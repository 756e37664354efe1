"""Training pairs of `everybody` from a bank: a window of masked frames and heatmaps, and the last frame as filmed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures, matched_keys
from services.render.pairs import LandmarkNoise, Pair, wanted_mouth
from services.render.renderers.everybody.inputs import frame_channels, window_picture


@dataclass(frozen=True, slots=True, eq=False)
class WindowView:
    """Window of footage as the network sees the window: as filmed, or in other colours.

    Attributes:
        rows: rows of the bank, frames t-6 to t.
        boxes: uint8 [7, 160, 160, 3], render boxes of these frames.
        keys: key pictures of the actor, in the same colours.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    keys: KeyPictures


def window_pair(bank: MouthBank, view: WindowView, noise: LandmarkNoise, seed: int) -> Pair:
    """Return the pair of a window's last frame.

    Args:
        bank: landmarks and poses of the person.
        view: the window.
        noise: strength of the noise on the wanted landmarks. All seven frames get the same noise, as from a predictor.
        seed: random seed of the noise.
    """
    channels: dict[int, UInt8] = {}
    points: Float32 = bank.box_landmarks[view.rows[-1]]
    mask: UInt8 = np.zeros(view.boxes.shape[1:3], np.uint8)
    for place, row in enumerate(view.rows):
        if row in channels:
            continue
        _, mask, _, points = wanted_mouth(bank, row, noise, seed)
        channels[row] = frame_channels(view.boxes[place], mask, points, int(bank.frame_index[row]))
    target: UInt8 = view.boxes[-1]
    keys = matched_keys(view.keys, target, mask, points)
    return Pair(window_picture([channels[row] for row in view.rows], mask, keys), target)
