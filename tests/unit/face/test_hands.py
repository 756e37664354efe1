"""Hands before a face, in real footage of a singer with a microphone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.common.array_types import UInt8
from services.common.face.crops import HeadPose, head_template, to_frame
from services.face.hands import HandNetwork, drawn_hand, hands_before

FIRST_HAND = """
import sys
from pathlib import Path
import numpy as np
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.face.hands import HandNetwork
with VideoReader(probe(Path(sys.argv[1]))) as reader:
    (picture,) = [to_rgb(frame) for frame in reader.frames(180, 181)]
network = HandNetwork()
network(np.zeros((256, 256, 3), np.uint8))
print(len(network(np.ascontiguousarray(picture[:, 140:500]))))
"""


def pictures(path: Path, first: int, count: int) -> list[UInt8]:
    with VideoReader(probe(path)) as reader:
        return [to_rgb(frame) for frame in reader.frames(first, first + count)]


@pytest.fixture(scope="module")
def network() -> HandNetwork:
    return HandNetwork()


def test_open_hand_is_found(clips: Any, network: HandNetwork) -> None:
    """The singer shows his open hand at the right, and holds the microphone in the other."""
    (picture,) = pictures(clips.path("video/fr_short_hamilton_clip.mp4"), 180, 1)
    square = np.ascontiguousarray(picture[:, 140:500])
    hands = network(square)
    assert len(hands) == 2
    np.testing.assert_array_equal(hands, network(square))
    assert np.isfinite(hands).all()


def test_face_behind_a_hand(clips: Any, network: HandNetwork) -> None:
    """A face that stands behind a found hand is covered in part; a face beside the hands is not."""
    (picture,) = pictures(clips.path("video/fr_short_hamilton_clip.mp4"), 180, 1)
    hand = max(network(np.ascontiguousarray(picture[:, 140:500])) + np.array([140, 0]), key=lambda points: points[:, 0].mean())
    length = float(np.linalg.norm(hand[9] - hand[0]))
    behind = HeadPose(length / 90.0, np.eye(3), np.array([*hand[9] - [0.3 * length, 0.0], 0.0]))
    hands, share = hands_before(network, picture, to_frame(head_template(), behind), behind)
    assert len(hands) == 1
    assert 0.1 < share < 0.9
    np.testing.assert_allclose(hands[0].mean(axis=0), hand.mean(axis=0), atol=0.25 * length)
    beside = HeadPose(length / 90.0, np.eye(3), np.array([*hand[9] - [0.0, 4.0 * length], 0.0]))
    hands, share = hands_before(network, picture, to_frame(head_template(), beside), beside)
    assert (len(hands), share) == (0, 0.0)


def test_hand_beside_the_face_is_left_out() -> None:
    """A hand near a face that covers none of the face is left out. The other hand is where the network saw it."""
    pose = HeadPose(1.5, np.eye(3), np.array([200.0, 150.0, 0.0]))
    landmarks = to_frame(head_template(), pose)
    spread = np.random.default_rng(0).uniform(-1.0, 1.0, (21, 2))

    def network(patch: UInt8) -> Any:
        side = len(patch)
        return np.array([0.05 * side * (1.0 + spread), side * (0.55 + 0.05 * spread)], np.float32)

    fake: Any = network
    hands, share = hands_before(fake, np.zeros((300, 400, 3), np.uint8), landmarks, pose)
    assert len(hands) == 1
    assert 0.05 < share < 0.9
    assert (landmarks[:, :2].min(axis=0) < hands[0].mean(axis=0)).all()
    assert (hands[0].mean(axis=0) < landmarks[:, :2].max(axis=0)).all()


def test_first_hand_writes_no_note(clips: Any) -> None:
    """MediaPipe's note at the first hand of a process does not stand among the messages of a command."""
    assert len(HandNetwork()(drawn_hand())) == 1
    arguments = [sys.executable, "-c", FIRST_HAND, str(clips.path("video/fr_short_hamilton_clip.mp4"))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("2", "")
