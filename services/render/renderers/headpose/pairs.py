"""Training pairs of `headpose` from a bank: three rendered frames with key pictures, and the last frame as filmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.common.array_types import UInt8
from services.common.face.identity_drawing import IdentityDrawing
from services.common.face.lip_pictures import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import KeyPictures
from services.render.pairs import LandmarkNoise, Pair, wanted_mouth
from services.render.renderers.headpose.inputs import SHOWN_KEYS, coverage, drawn_picture, rendered_frame, shown_keys
from services.render.renderers.headpose.mouth_interior import MouthInterior


@dataclass(frozen=True, slots=True, eq=False)
class DrawnView:
    """Window of footage as the network sees the window: as filmed, or in other colours.

    Attributes:
        rows: rows of the bank, frames t-2 to t.
        boxes: uint8 [3, 160, 160, 3], render boxes of these frames.
        keys: key pictures of the actor, in the same colours.
        drawing: draws the person.
        detailed: draw with the detailed albedo, not with the low-frequency albedo.
        mean: mean open mouth; None: the one that comes with dubstage.
        paint: brings a drawn face to the colours of `boxes`; None: the drawn face stays as it is.
    """

    rows: tuple[int, ...]
    boxes: UInt8
    keys: KeyPictures
    drawing: IdentityDrawing
    detailed: bool
    mean: MouthInterior | None = None
    paint: Callable[[UInt8], UInt8] | None = None


def drawn_pair(bank: MouthBank, view: DrawnView, noise: LandmarkNoise, seed: int) -> Pair:
    """Return the pair of a window's last frame.

    Args:
        bank: landmarks and poses of the person.
        view: the window.
        noise: strength of the noise on the wanted landmarks. All three frames get the same noise, as from a predictor.
        seed: random seed of the noise.
    """
    rendered: dict[int, UInt8] = {}
    mask: UInt8 = np.zeros(view.boxes.shape[1:3], np.uint8)
    lips, keys = np.dstack([mask, mask]), np.zeros((SHOWN_KEYS, *view.boxes.shape[1:]), np.uint8)
    for place, row in enumerate(view.rows):
        if row in rendered:
            continue
        pose, mask, mouth, points = wanted_mouth(bank, row, noise, seed)
        drawn = view.drawing.draw(mouth, pose, detailed=view.detailed)
        covered = coverage(drawn)
        keys = shown_keys(view.keys, view.boxes[place], mask, points, view.mean)
        shown = drawn if view.paint is None else view.paint(drawn)
        rendered[row] = rendered_frame(view.boxes[place], mask, shown, keys[0], covered)
        lips = lip_pictures(points)
    return Pair(drawn_picture([rendered[row] for row in view.rows], mask, lips, keys), view.boxes[-1])
