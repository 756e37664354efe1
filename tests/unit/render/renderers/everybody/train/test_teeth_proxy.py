from __future__ import annotations

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import head_to_box
from services.common.face.landmarks import shut_lips
from services.common.face.mouth_bank import MouthBank
from services.render.renderers.everybody.train.teeth_proxy import collect_teeth, most_similar, with_teeth
from tests.unit.render.conftest import UPRIGHT


def shut_points(bank: MouthBank) -> Float32:
    """Landmarks of the drawn person with touching lips, box pixels."""
    return head_to_box(shut_lips(bank.mouth[0]), UPRIGHT)


def with_stripes(bank: MouthBank) -> UInt8:
    """The drawn person's boxes with teeth: fine stripes over the mouth area."""
    stripes = np.where(np.arange(160) % 4 < 2, 60, 0).astype(np.uint8)[None, :, None]
    return np.asarray(np.clip(bank.boxes.astype(int) + stripes, 0, 255), dtype=np.uint8)


def test_shut_mouths_are_not_collected(bank: MouthBank) -> None:
    database = collect_teeth(bank.boxes, bank.box_landmarks)
    shut = collect_teeth(bank.boxes[:1], shut_points(bank)[None])
    assert len(shut.masks) == 0
    assert len(database.masks) == bank.num_frames
    assert database.textures.shape == (len(database.masks), 64, 96, 3)


def test_the_mask_that_overlaps_most_is_found(bank: MouthBank) -> None:
    database = collect_teeth(bank.boxes, bank.box_landmarks)
    for place in (0, 4):
        assert most_similar(database.masks[place], database)[1] == 1.0
    square = np.zeros((64, 96), bool)
    square[20:44, 30:66] = True
    best, overlap = most_similar(square, database)
    ious = [(mask & square).sum() / (mask | square).sum() for mask in database.masks]
    assert overlap == max(ious) == ious[best]


def test_lost_detail_comes_back_inside_the_lips_only(bank: MouthBank) -> None:
    sharp = with_stripes(bank)
    database = collect_teeth(sharp, bank.box_landmarks)
    truth, points = sharp[6], bank.box_landmarks[6]
    blurred = np.asarray(cv2.GaussianBlur(truth, (0, 0), 2.0), dtype=np.uint8)
    made = with_teeth(blurred, points, database)
    changed = (made != blurred).any(axis=2)
    inside = np.zeros((160, 160), np.uint8)
    cv2.fillPoly(inside, [np.rint(points[20:40]).astype(np.int32)], 1)
    assert not changed[cv2.dilate(inside, np.ones((3, 3), np.uint8)) == 0].any()
    core = cv2.erode(inside, np.ones((5, 5), np.uint8)) > 0
    error = [float(np.abs(picture[core].astype(int) - truth[core]).mean()) for picture in (blurred, made)]
    assert error[1] < 0.6 * error[0]


def test_a_shut_mouth_and_an_empty_database_change_nothing(bank: MouthBank) -> None:
    database = collect_teeth(bank.boxes, bank.box_landmarks)
    face = bank.boxes[0]
    assert with_teeth(face, shut_points(bank), database) is face
    empty = collect_teeth(bank.boxes[:1], shut_points(bank)[None])
    assert with_teeth(face, bank.box_landmarks[6], empty) is face
