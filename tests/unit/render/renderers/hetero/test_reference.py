from __future__ import annotations

import numpy as np

from services.common.face.landmarks import mouth_opening
from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.renderers.hetero.reference import (
    EMBEDDING_SIZE,
    NUM_REFERENCES,
    choose_references,
    packed,
    unpacked,
    with_other_reference,
)


def test_a_state_packs_and_unpacks(bank: MouthBank) -> None:
    numbers = np.random.default_rng(0).normal(0, 0.1, 100).astype(np.float32)
    got, picture = unpacked(packed(numbers, bank.boxes[3]))
    assert np.array_equal(got, numbers)
    assert np.array_equal(picture, bank.boxes[3])


def test_a_state_of_zeros_has_a_grey_picture() -> None:
    _, picture = unpacked(np.zeros_like(packed(np.zeros(4, np.float32), np.zeros((160, 160, 3), np.uint8))))
    assert (picture == 128).all()


def test_another_reference_drops_the_vector_of_the_own_one() -> None:
    numbers = np.ones(EMBEDDING_SIZE + 3, np.float32)
    assert np.flatnonzero(with_other_reference(numbers)).tolist() == [0, 1, 2]


def test_the_references_stand_for_all_openings_and_the_served_one_is_open(bank: MouthBank) -> None:
    rows = choose_references(bank)
    openings = mouth_opening(bank.mouth)
    assert len(set(rows.tolist())) == NUM_REFERENCES
    assert {openings.min(), openings.max()} <= set(openings[rows])
    assert np.median(openings) < openings[rows[0]] < openings.max()


def test_a_bank_of_one_frame_has_one_reference(bank: MouthBank) -> None:
    one = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    assert choose_references(one).tolist() == [0]
