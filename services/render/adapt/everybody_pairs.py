"""Training pairs of `everybody` from a bank: a window of masked frames and heatmaps, and the frame that was filmed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.actor_geometry import lower_face_mask
from services.common.crops import HeadPose, head_to_box
from services.common.mouth_bank import MouthBank
from services.render.adapt.pairs import LandmarkNoise, Pair, perturbed
from services.render.heatmaps import frame_channels, window_picture
from services.render.key_pictures import KeyPictures, matched_keys
from services.render.types import Float32, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class WindowView:
    """A window of footage as it is shown: as filmed, or in other colours.

    Attributes:
        rows: the bank's rows, t-6 to t.
        boxes: uint8 [7, 160, 160, 3].
        keys: the actor's, in the same colours.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    keys: KeyPictures


def window_pair(bank: MouthBank, view: WindowView, noise: LandmarkNoise, seed: int) -> Pair:
    """The pair of a window's last frame.

    Args:
        bank: has the landmarks and poses.
        view: the window.
        noise: how far the wanted landmarks are off; the same way in all seven frames, as a predictor's would be.
        seed: of this noise.
    """
    channels: dict[int, UInt8] = {}
    points: Float32 = bank.box_landmarks[view.rows[-1]]
    mask: UInt8 = np.zeros(view.boxes.shape[1:3], np.uint8)
    for place, row in enumerate(view.rows):
        if row in channels:
            continue
        pose = HeadPose(1.0, bank.rotation[row], np.zeros(3))
        mask = lower_face_mask(bank.geometry, pose)
        points = head_to_box(perturbed(bank.mouth[row], noise, np.random.default_rng(seed)), pose)
        channels[row] = frame_channels(view.boxes[place], mask, points, int(bank.frame_index[row]))
    target: UInt8 = view.boxes[-1]
    keys = matched_keys(view.keys, target, mask, points)
    return Pair(window_picture([channels[row] for row in view.rows], mask, keys), target)
