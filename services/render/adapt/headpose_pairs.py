"""Training pairs of `headpose`: three rendered frames, key pictures, and the frame that was filmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.common.actor_geometry import lower_face_mask
from services.common.crops import HeadPose, head_to_box
from services.common.identity_drawing import IdentityDrawing
from services.common.mouth_bank import MouthBank
from services.render.adapt.pairs import LandmarkNoise, Pair, perturbed
from services.render.drawn_face import SHOWN_KEYS, coverage, drawn_picture, rendered_frame, shown_keys
from services.render.features import lip_pictures
from services.render.key_pictures import KeyPictures
from services.render.types import UInt8


@dataclass(frozen=True, slots=True, eq=False)
class DrawnView:
    """A window of footage as it is shown: as filmed, or in other colours.

    Attributes:
        rows: the bank's rows, t-2 to t.
        boxes: uint8 [3, 160, 160, 3].
        keys: the actor's, in the same colours.
        drawing: draws the person.
        detailed: with the detailed albedo instead of the low-frequency one.
        paint: brings a drawn face to these colours; None: as it is.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    keys: KeyPictures
    drawing: IdentityDrawing
    detailed: bool
    paint: Callable[[UInt8], UInt8] | None = None


def drawn_pair(bank: MouthBank, view: DrawnView, noise: LandmarkNoise, seed: int) -> Pair:
    """The pair of a window's last frame.

    Args:
        bank: has the landmarks and poses.
        view: the window.
        noise: how far the wanted landmarks are off; the same way in all three frames, as a predictor's would be.
        seed: of this noise.
    """
    rendered: dict[int, UInt8] = {}
    mask: UInt8 = np.zeros(view.boxes.shape[1:3], np.uint8)
    lips, keys = np.dstack([mask, mask]), np.zeros((SHOWN_KEYS, *view.boxes.shape[1:]), np.uint8)
    for place, row in enumerate(view.rows):
        if row in rendered:
            continue
        pose = HeadPose(1.0, bank.rotation[row], np.zeros(3))
        mask = lower_face_mask(bank.geometry, pose)
        mouth = perturbed(bank.mouth[row], noise, np.random.default_rng(seed))
        points = head_to_box(mouth, pose)
        drawn = view.drawing.draw(mouth, pose, detailed=view.detailed)
        covered = coverage(drawn)
        keys = shown_keys(view.keys, view.boxes[place], mask, points)
        shown = drawn if view.paint is None else view.paint(drawn)
        rendered[row] = rendered_frame(view.boxes[place], mask, shown, keys[0], covered)
        lips = lip_pictures(points)
    return Pair(drawn_picture([rendered[row] for row in view.rows], mask, lips, keys), view.boxes[-1])
