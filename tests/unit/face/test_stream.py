"""The tracker on a real photograph that is moved, covered and taken away."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from services.common.face.landmarks import JAW
from services.face.stream import FaceTracker, Networks
from services.face.types import FrameFaces, Reason, TrackOptions


@pytest.fixture(scope="module")
def networks():
    loaded = Networks()
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(astronaut()[:320, 60:400])


def moved(picture: np.ndarray, x: float, y: float = 0.0, degrees: float = 0.0, scale: float = 1.0) -> np.ndarray:
    affine = cv2.getRotationMatrix2D((165.0, 120.0), degrees, scale)
    affine[:, 2] += [x, y]
    return cv2.warpAffine(picture, affine, (480, 320), borderMode=cv2.BORDER_REPLICATE)


def track(networks: Networks, pictures: list[np.ndarray], **options: int) -> list[FrameFaces]:
    tracker = FaceTracker(networks, TrackOptions(**options))
    frames = [frame for picture in pictures for frame in tracker.push(picture)]
    return frames + tracker.finish()


def test_every_frame_is_answered_once_in_order_with_a_bounded_delay(networks, photograph) -> None:
    tracker = FaceTracker(networks, TrackOptions(half_width=3), first_frame=100)
    counts = [len(tracker.push(moved(photograph, 0))) for _ in range(8)]
    assert counts == [0, 0, 0, 1, 1, 1, 1, 1]
    assert [frame.frame_index for frame in tracker.finish()] == [105, 106, 107]


def test_the_same_pictures_give_the_same_bytes_whatever_was_tracked_before(networks, photograph) -> None:
    pictures = [moved(photograph, 2 * index) for index in range(6)]
    first = track(networks, pictures)
    track(networks, [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures])
    second = track(networks, pictures)
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before.faces[0].landmarks, after.faces[0].landmarks)
        assert before.faces[0].confidence == after.faces[0].confidence


def test_landmarks_follow_the_picture_to_a_fraction_of_a_pixel(networks, photograph) -> None:
    still = track(networks, [moved(photograph, 0)] * 4)[3].faces[0]
    for degrees, scale in ((0.0, 1.25), (12.0, 1.0)):
        face = track(networks, [moved(photograph, 40.5, degrees=degrees, scale=scale)] * 4)[3].faces[0]
        affine = cv2.getRotationMatrix2D((165.0, 120.0), degrees, scale)
        affine[:, 2] += [40.5, 0.0]
        expected = still.landmarks[:468, :2] @ affine[:, :2].T + affine[:, 2]
        assert np.abs(face.landmarks[:468, :2] - expected).mean() < 0.7
        assert face.pose.roll_degrees == pytest.approx(still.pose.roll_degrees - degrees, abs=1.0)
        assert np.abs(face.mouth_landmarks - still.mouth_landmarks)[:, :2].mean() < 1.2


def test_a_face_that_leaves_and_comes_back_keeps_its_id(networks, photograph) -> None:
    places = [0, -30, -60, -90, -120, -150, -180, -220, -260, -300, -340]
    pictures = [moved(photograph, x) for x in [*places, *[-340] * 4, *places[::-1]]]
    frames = track(networks, pictures)
    assert frames[0].faces[0].reason is Reason.DUBBED
    assert not frames[13].faces
    assert {face.face_id for frame in frames for face in frame.faces} == {0}
    assert frames[-1].faces[0].reason is Reason.DUBBED
    assert any(face.reason is Reason.OUT_OF_FRAME for frame in frames for face in frame.faces)


def test_a_patch_over_the_mouth_is_noticed_from_its_first_frame_to_its_last(networks, photograph) -> None:
    face = track(networks, [moved(photograph, 0)])[0].faces[0]
    chin, mouth = face.landmarks[152], face.landmarks[13]
    left = int(face.landmarks[JAW[2], 0])
    pictures = [moved(photograph, 0) for _ in range(20)]
    for picture in pictures[8:14]:
        picture[int(mouth[1]) - 12 : int(chin[1]) + 10, left - 5 : int(mouth[0]) + 12] = (60, 110, 160)
    reasons = [frame.faces[0].reason for frame in track(networks, pictures)]
    covered = [index for index, reason in enumerate(reasons) if reason is Reason.OCCLUDED_MOUTH]
    assert covered == list(range(8, 14))
    assert set(reasons) == {Reason.DUBBED, Reason.OCCLUDED_MOUTH}


def test_two_faces_get_two_ids_and_max_faces_keeps_the_larger(networks, photograph) -> None:
    near = moved(photograph, 0)[:, :300]
    far = cv2.resize(near, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    both = np.zeros((320, 540, 3), np.uint8)
    both[:, :300], both[: far.shape[0], 300 : 300 + far.shape[1]] = near, far
    frames = track(networks, [both] * 4)
    assert [face.face_id for face in frames[-1].faces] == [0, 1]
    assert frames[-1].faces[0].pose.scale > frames[-1].faces[1].pose.scale
    assert [len(frame.faces) for frame in track(networks, [both] * 4, max_faces=1)] == [1] * 4


def test_a_small_face_says_so(networks, photograph) -> None:
    small = cv2.resize(photograph, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    faces = [face for frame in track(networks, [small] * 4) for face in frame.faces]
    assert {face.reason for face in faces} == {Reason.FACE_TOO_SMALL}


@pytest.mark.parametrize("size", [(240, 320), (16, 16), (5, 900)])
def test_pictures_without_a_face_have_none(networks, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    assert all(not frame.faces for frame in track(networks, [noise] * 2))


def test_nothing_is_smoothed_across_a_cut(networks, photograph) -> None:
    other = 255 - moved(photograph, 0)[::-1, ::-1]
    first, second = moved(photograph, 0), moved(photograph, 60, scale=1.2)
    frames = track(networks, [first] * 5 + [np.ascontiguousarray(other)] + [second] * 5)
    assert [frame.frame_index for frame in frames if frame.shot_cut] == [5, 6]
    alone = track(networks, [second] * 5)
    before, after = frames[6].faces[0].landmarks, alone[0].faces[0].landmarks
    assert np.abs(before - after).max() < 1e-3
