"""What covers a face keeps its pixels. Drawn boxes; tests/system/test_covered_and_lost.py has real people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gateway.compositing.cover import Cover, FaceLooks, find_cover, learn_looks
from gateway.compositing.jaw import JawMove
from services.common.array_types import Float32, UInt8
from services.common.face.crops import BOX_SIZE
from tests.unit.compositing.test_movable import SKIN, box, mouth

SHIRT, BLACK = (20, 40, 120), (25, 25, 30)
NO_HANDS = np.empty((0, 21, 2), np.float32)


def free_box(step: int) -> UInt8:
    """A free face that lies some pixels beside its usual place, as the errors of head poses have it."""
    shift = np.array([[1, 0, step % 3 - 1], [0, 1, step % 2]], np.float32)
    return np.asarray(cv2.warpAffine(box(SHIRT), shift, (BOX_SIZE, BOX_SIZE), borderMode=cv2.BORDER_REPLICATE), np.uint8)


@pytest.fixture(scope="module")
def looks() -> FaceLooks:
    return learn_looks([free_box(step) for step in range(12)], [mouth()] * 12)


def covered_by_disc(centre: tuple[int, int], radius: int, colour: tuple[int, int, int]) -> tuple[UInt8, UInt8]:
    """A face behind a disc, and 1 where the disc is."""
    disc = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    cv2.circle(disc, centre, radius, (1,), cv2.FILLED)
    seen = free_box(0)
    seen[disc > 0] = colour
    return seen, disc


def cover_of(looks: FaceLooks, seen: UInt8, hands: Float32 = NO_HANDS) -> Cover:
    cover = find_cover(looks, seen, hands, mouth(), 0.0)
    assert cover is not None
    return cover


def test_free_face_has_no_cover(looks: FaceLooks) -> None:
    assert find_cover(looks, free_box(7), NO_HANDS, mouth(), 0.0) is None


def test_microphone_is_covered_to_its_edge(looks: FaceLooks) -> None:
    """All pixels of a disc that comes from below count, and few of the face beside the disc."""
    seen, disc = covered_by_disc((100, 110), 46, BLACK)
    cover = cover_of(looks, seen)
    assert cover.pixels[disc > 0].all()
    assert not cover.pixels[cv2.dilate(disc, np.ones((17, 17), np.uint8)) == 0].any()
    assert 0.0 < cover.mouth_share < 0.5


def test_share_of_the_mouth(looks: FaceLooks) -> None:
    """A disc below the mouth covers nothing of the mouth; a disc over the whole mouth covers all."""
    below, _ = covered_by_disc((80, 150), 45, BLACK)
    over, _ = covered_by_disc((80, 95), 64, BLACK)
    assert cover_of(looks, below).mouth_share == 0.0
    assert cover_of(looks, over).mouth_share > 0.95


def test_spot_inside_the_face_is_not_known(looks: FaceLooks) -> None:
    """What covers a face comes from beside the face. A spot inside is a part of something larger in the colours of the face."""
    spot, _ = covered_by_disc((80, 92), 8, BLACK)
    assert find_cover(looks, spot, NO_HANDS, mouth(), 0.0) is None


def test_new_edges_tell_of_unseen_parts(looks: FaceLooks) -> None:
    """A disc with a stick in the colours of the face: the edges of the stick show that the disc is not all."""
    seen, _ = covered_by_disc((60, 130), 30, BLACK)
    assert find_cover(looks, seen, NO_HANDS, mouth(), 0.0) is not None
    darker = tuple(int(0.9 * value) for value in SKIN)
    for across in (92, 100, 108):
        cv2.line(seen, (across, 60), (across, 110), darker, 3)
    assert find_cover(looks, seen, NO_HANDS, mouth(), 0.0) is None


def test_face_stage_finds_more(looks: FaceLooks) -> None:
    """If the face stage finds much more of the face covered, the found pixels are not all."""
    seen, _ = covered_by_disc((100, 130), 40, BLACK)
    assert find_cover(looks, seen, NO_HANDS, mouth(), 0.1) is not None
    assert find_cover(looks, seen, NO_HANDS, mouth(), 0.8) is None


def test_hand_in_the_colours_of_the_face(looks: FaceLooks) -> None:
    """The pixels of a hand come from the hand's landmarks."""
    hand = np.array([[[120, 150]] + [[80 + 3 * (k % 5), 120 - 8 * (k // 5)] for k in range(20)]], np.float32)
    cover = cover_of(looks, free_box(1), hand)
    assert cover.pixels[120, 85]
    assert not cover.pixels[60, 40]


def test_few_free_frames_tell_nothing() -> None:
    few = learn_looks([free_box(step) for step in range(7)], [mouth()] * 7)
    seen, _ = covered_by_disc((100, 130), 40, BLACK)
    assert find_cover(few, seen, NO_HANDS, mouth(), 0.0) is None
    assert find_cover(learn_looks([], []), seen, NO_HANDS, mouth(), 0.0) is None


def test_nothing_moves_behind_a_cover() -> None:
    """Neither the box nor the moved footage reaches a covered pixel, and the move does not read one."""
    covered = np.zeros((BOX_SIZE, BOX_SIZE), np.bool_)
    covered[:, 100:] = True
    move = JawMove(np.full((BOX_SIZE, BOX_SIZE, 2), 6.0, np.float32), np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)).behind(covered)
    assert not move.mask[covered].any()
    assert not move.shift[covered].any()
    assert (move.mask[:, :90] == 255).all()
    columns = np.arange(BOX_SIZE) + move.shift[80, :, 0]
    assert columns[:100].max() < 100
    np.testing.assert_allclose(move.shift[:, :80], 6.0)
