"""Windows of footage that the network of `everyone` learns from: everything but the texture, and pairs for a finished texture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from services.common.array_types import Float32, Int64, UInt8
from services.common.face.lip_pictures import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.common.face.neural_texture import NeuralSurface, sample
from services.render.pairs import LandmarkNoise, Pair, wanted_mouth
from services.render.renderers.everyone.inputs import feature_bytes, filled_frame, ground_picture, network_picture


@dataclass(frozen=True, slots=True, eq=False)
class SeenWindow:
    """Window t-1 to t+1 of footage without its texture, or a batch of windows: then all arrays have a batch axis in front.

    Attributes:
        boxes: uint8 [3, 160, 160, 3], the footage.
        grounds: uint8 [3, 160, 160, 3], the footage with the reference picture under the masks (inputs.ground_picture).
        masks: uint8 [3, 160, 160].
        uv: float32 [3, 160, 160, 2], texture coordinates; negative where there is no face.
        reference: uint8 [160, 160, 3].
        lips: uint8 [160, 160], wanted lips of frame t.
        speech: float32 [20, 40]; zeros: silence or unknown.
    """

    boxes: UInt8
    grounds: UInt8
    masks: UInt8
    uv: Float32
    reference: UInt8
    lips: UInt8
    speech: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """How a window is looked at.

    Attributes:
        reference: uint8 [160, 160, 3], the reference picture.
        speech: float32 [20, 40].
        noise: strength of the noise on the wanted landmarks. All three frames get the same noise, as from a predictor.
        seed: random seed of the noise.
        paint: brings pictures to other colours; None: as filmed.
    """

    reference: UInt8
    speech: Float32
    noise: LandmarkNoise
    seed: int
    paint: Callable[[UInt8], UInt8] | None = None


def rows_around(frame_index: Int64, row: int) -> tuple[int, int, int]:
    """Return the rows of the frames t-1, t and t+1. The frame itself stands in for a missing neighbour.

    Args:
        frame_index: int64 [F], place of each row in the footage.
        row: row of frame t.
    """
    before = row - 1 if row > 0 and frame_index[row] - frame_index[row - 1] == 1 else row
    after = row + 1 if row + 1 < len(frame_index) and frame_index[row + 1] - frame_index[row] == 1 else row
    return before, row, after


def seen_window(bank: MouthBank, row: int, surface: NeuralSurface, look: Look) -> SeenWindow:
    """Return the window of a row.

    The expression is solved from the wanted landmarks, as in serving.

    Args:
        bank: landmarks, poses and pictures of the person.
        row: row of frame t.
        surface: the person's surface.
        look: reference, speech, noise and colours.
    """
    made: dict[int, tuple[UInt8, UInt8, UInt8, Float32]] = {}
    rows = rows_around(bank.frame_index, row)
    paint = look.paint or (lambda picture: picture)
    reference = paint(look.reference)
    lips: UInt8 = np.zeros(bank.boxes.shape[1:3], np.uint8)
    for place in rows:
        if place in made:
            continue
        pose, mask, mouth, points = wanted_mouth(bank, place, look.noise, look.seed)
        box = paint(bank.boxes[place])
        made[place] = box, ground_picture(box, mask, reference), mask, surface.uv_of(surface.expression_of(mouth), pose)
        if place == row:
            lips = lip_pictures(points)[..., 0]
    boxes, grounds, masks, uv = (np.stack(parts) for parts in zip(*(made[place] for place in rows), strict=True))
    return SeenWindow(boxes, grounds, masks, uv, reference, lips, look.speech)


def pair_of(window: SeenWindow, texture: UInt8) -> Pair:
    """Return the pair of a window's frame t with a texture, uint8 [256, 256, 16], as serving makes it."""
    frames = [
        filled_frame(ground, mask, feature_bytes(sample(texture, uv)), uv[..., 0] >= 0.0)
        for ground, mask, uv in zip(window.grounds, window.masks, window.uv, strict=True)
    ]
    return Pair(network_picture(frames, window.reference, window.lips, window.speech), window.boxes[1])


def stacked(windows: Sequence[SeenWindow]) -> SeenWindow:
    """Return a batch of windows."""
    return SeenWindow(*(np.stack([getattr(window, each.name) for window in windows]) for each in fields(SeenWindow)))
