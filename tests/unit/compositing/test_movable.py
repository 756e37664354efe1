"""Skin, beards and shadows may move; clothing may not. Drawn boxes; tests/system/test_mask.py has real people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.movable import learn_colours
from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import JAW, LIPS_OUTER, NUM_LIPS, NUM_MOUTH_AREA

SKIN, BEARD, LIPS = (200, 150, 125), (70, 58, 52), (180, 70, 80)
CHIN, COLLAR = 112, 140
"""Rows of the chin and of the collar, box pixels."""


def mouth() -> Float32:
    points = np.zeros((NUM_MOUTH_AREA, 2), np.float32)
    around = np.linspace(0, 2 * np.pi, len(LIPS_OUTER), endpoint=False)
    points[: len(LIPS_OUTER)] = np.stack([80 + 22 * np.cos(around), 66 + 8 * np.sin(around)], axis=1)
    down = np.linspace(0, np.pi, len(JAW) - 2)
    points[NUM_LIPS : NUM_LIPS + len(JAW) - 2] = np.stack([80 - 56 * np.cos(down), 60 + (CHIN - 60) * np.sin(down)], axis=1)
    return points


def box(cloth: tuple[int, int, int], neck: tuple[int, int, int] = SKIN, beard: tuple[int, int, int] = SKIN) -> UInt8:
    """A face with a chin, a neck below and a collar at the lower edge, with a little noise."""
    contour = np.round(mouth()[NUM_LIPS : NUM_LIPS + len(JAW) - 2]).astype(np.int32)
    drawn = np.full((BOX_SIZE, BOX_SIZE, 3), cloth, np.uint8)
    drawn[:COLLAR, 24:136] = neck
    cv2.fillPoly(drawn, [np.concatenate([contour, [[136, 0], [24, 0]]]).astype(np.int32)], SKIN)
    chin = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    cv2.fillPoly(chin, [contour], (1,))
    chin[:84] = 0
    drawn[chin > 0] = beard
    cv2.fillConvexPoly(drawn, np.round(mouth()[: len(LIPS_OUTER)]).astype(np.int32), LIPS)
    noise = np.random.default_rng(0).normal(0, 1.5, drawn.shape)
    return np.clip(cv2.GaussianBlur(drawn, (0, 0), 1.0) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "cloth", [(30, 28, 30), (235, 235, 240), (40, 60, 120), (120, 120, 118)], ids=["black", "white", "blue", "grey"]
)
def test_clothing_rests_and_neck_moves(cloth: tuple[int, int, int]) -> None:
    picture = box(cloth)
    movable = learn_colours([picture], [mouth()]).movable(picture, mouth())
    assert not movable[COLLAR + 4 :].any()
    assert not movable[:, : 24 - 4].any()
    assert movable[60 : COLLAR - 6, 32:128].all()


@pytest.mark.parametrize("shade", [(120, 88, 72), (74, 43, 28), (54, 31, 16)])
def test_neck_in_shadow_moves(shade: tuple[int, int, int]) -> None:
    """The shadow of the chin on the neck is skin, and a grey collar below it is not."""
    skin = np.array([149.0, 102.0, 71.0]) / SKIN
    picture = box((30, 28, 30), neck=shade)
    inside = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    cv2.fillPoly(inside, [np.round(mouth()[NUM_LIPS : NUM_LIPS + len(JAW) - 2]).astype(np.int32)], (1,))
    picture[inside > 0] = (picture[inside > 0] * skin).astype(np.uint8)
    movable = learn_colours([picture], [mouth()]).movable(picture, mouth())
    assert movable[CHIN + 2 : COLLAR - 6, 40:120].mean() > 0.98
    assert not movable[COLLAR + 4 :].any()


def test_a_beard_moves() -> None:
    """The beard of a face that was learned may move below the tracked jaw too; other dark things may not."""
    bearded = box((40, 60, 120), beard=BEARD)
    bearded[CHIN - 2 : CHIN + 8, 60:100] = BEARD
    shaved = box((40, 60, 120))
    shaved[CHIN - 2 : CHIN + 12, :] = BEARD
    found = learn_colours([bearded], [mouth()]).movable(bearded, mouth())
    assert found[CHIN + 1 : CHIN + 6, 62:98].all()
    assert not learn_colours([box((40, 60, 120))], [mouth()]).movable(shaved, mouth())[CHIN + 4 : CHIN + 8].any()


def test_necklace_moves_with_skin() -> None:
    """An island inside the skin moves with the skin around."""
    picture = box((40, 60, 120))
    colours = learn_colours([picture], [mouth()])
    picture[122:128, 70:90] = (250, 250, 255)
    assert colours.movable(picture, mouth())[122:128, 70:90].all()


def test_mouth_out_of_sight() -> None:
    """A box that shows nothing of the face holds nothing that may move."""
    picture, colours = box((40, 60, 120)), learn_colours([box((40, 60, 120))], [mouth()])
    assert not colours.movable(picture, mouth() + np.float32(1000.0)).any()


def test_what_covers_the_face_has_no_colours_of_the_face() -> None:
    """A black thing before the chin does not make black clothing movable."""
    picture = box((30, 28, 30))
    covered = np.zeros((BOX_SIZE, BOX_SIZE), np.bool_)
    covered[90:] = True
    picture[covered] = (30, 28, 30)
    free = box((30, 28, 30))
    assert learn_colours([picture], [mouth()]).movable(free, mouth())[COLLAR + 4 :].any()
    assert not learn_colours([picture], [mouth()], [covered]).movable(free, mouth())[COLLAR + 4 :].any()
