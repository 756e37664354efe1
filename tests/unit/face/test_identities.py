"""Tests of the ids of people who leave and come back."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.crops import HeadPose, head_template
from services.common.face.landmarks import NUM_LANDMARKS
from services.face.identities import IdentityBook
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


@pytest.mark.parametrize(
    ("found", "shot", "present", "whole", "is_first"),
    [
        (face(1, 1500, 50), 0, False, True, True),
        (face(3, 1500), 0, False, True, False),
        (face(1, 130, 60), 1, False, True, True),
        (face(1, 100, 7), 0, True, True, False),
        (face(3, 120), 0, False, False, True),
        (face(3, 120), 1, False, False, False),
    ],
    ids=["elsewhere", "another person elsewhere", "after a cut", "present", "cut off, same place", "cut off, another shot"],
)
def test_first_person_is_recognised(found: RawFace, shot: int, present: bool, whole: bool, is_first: bool) -> None:
    """A person keeps the id elsewhere and after a cut. A face that the frame cuts off is known by its place in the shot only.

    The id of a person who is in the picture is not given to another face.
    """
    book = IdentityBook()
    first = met(book, 1, 100)
    met(book, 2, 800)
    assert (book.recognise(found, shot, {first} if present else set(), whole=whole) == first) is is_first
