"""Tests of the pixels that a hand covers."""

from __future__ import annotations

import numpy as np

from services.common.face.hands import hand_mask


def upright_hand(spread: float = 1.0, bend: float = 0.0, bone: float = 12.0) -> np.ndarray:
    """An open hand: the wrist at 100, 150 and five fingers that point upwards, float32 [1, 21, 2]. Every second joint is bent."""
    points = [[100.0, 150.0]]
    for finger, across in enumerate((-20.0, -12.0, 0.0, 12.0, 24.0)):
        root = 40.0 if finger else 16.0
        points += [[100.0 + across * spread + bend * (joint % 2), 150.0 - root - bone * joint] for joint in range(4)]
    return np.array([points], np.float32)


def test_hand_covers_landmarks_and_arm() -> None:
    """Palm, fingers and the arm behind the wrist are covered; the picture beside the hand is not."""
    hand = upright_hand()
    mask = hand_mask(hand, 200)
    x, y = np.rint(hand[0].T).astype(int)
    assert mask[y, x].all()
    assert mask[180, 100]
    assert not mask[150:, :60].any()
    assert not mask[:40].any()


def test_fingers_run_from_joint_to_joint() -> None:
    """The middles between the joints of spread, bent fingers are covered."""
    hand = upright_hand(spread=4.0, bend=36.0, bone=30.0)
    joints = hand[0, 1:].reshape(5, 4, 2)
    x, y = np.rint((joints[:, 1:] + joints[:, :-1]).reshape(-1, 2).T / 2).astype(int)
    assert hand_mask(hand, 300)[y, x].all()


def test_no_hand_covers_nothing() -> None:
    assert not hand_mask(np.empty((0, 21, 2), np.float32), 50).any()


def test_hand_far_outside_is_no_error() -> None:
    assert not hand_mask(upright_hand() + np.float32(1e6), 200).any()
