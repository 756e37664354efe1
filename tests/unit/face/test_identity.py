from __future__ import annotations

import numpy as np

from services.common.face.crops import HeadPose, head_template
from services.common.face.landmarks import NUM_LANDMARKS
from services.face.identity import IdentityBook
from services.face.smoothing import RawFace

HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])


def face(person: int, x: float, noise: int = 0) -> RawFace:
    """A face at `x`; persons differ by 4 crop px root mean square, readings by half a pixel."""
    shape = np.random.default_rng(person).normal(0, 4 / np.sqrt(2) / np.sqrt(2), HEAD.shape)
    jitter = np.random.default_rng(1000 + noise).normal(0, 0.35, HEAD.shape)
    pose = HeadPose(1.0, np.eye(3), np.array([x, 200.0, 0.0]))
    return RawFace(pose, (HEAD + shape + jitter).astype(np.float32))


def met(book: IdentityBook, person: int, x: float, shot: int = 0) -> int:
    face_id = book.recognise(face(person, x), shot, set(), whole=True)
    for noise in range(20):
        book.observe(face_id, face(person, x, noise), shot, whole=True)
    return face_id


def test_new_people_get_new_ids() -> None:
    book = IdentityBook()
    assert book.recognise(face(1, 100), 0, set(), whole=True) == 0
    assert book.recognise(face(2, 900), 0, {0}, whole=True) == 1


def test_who_comes_back_elsewhere_in_the_shot_keeps_the_id() -> None:
    book = IdentityBook()
    first = met(book, 1, 100)
    assert book.recognise(face(1, 1500, 50), 0, set(), whole=True) == first


def test_another_person_elsewhere_does_not_take_it() -> None:
    book = IdentityBook()
    first = met(book, 1, 100)
    assert book.recognise(face(2, 1500), 0, set(), whole=True) != first


def test_a_cut_off_face_is_known_by_its_place_in_the_shot_only() -> None:
    book = IdentityBook()
    first = met(book, 1, 100)
    assert book.recognise(face(3, 120), 0, set(), whole=False) == first
    assert book.recognise(face(3, 120), 1, set(), whole=False) != first


def test_after_a_cut_the_same_face_is_recognised() -> None:
    book = IdentityBook()
    first = met(book, 1, 100)
    met(book, 2, 800)
    assert book.recognise(face(1, 130, 60), 1, set(), whole=True) == first


def test_a_person_in_the_picture_is_not_given_away() -> None:
    book = IdentityBook()
    first = met(book, 1, 100)
    assert book.recognise(face(1, 100, 7), 0, {first}, whole=True) != first
