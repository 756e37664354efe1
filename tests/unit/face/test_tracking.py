"""Tests of the tracker on a real photograph that is moved, covered and taken away."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from skimage.data import astronaut

from dubstage.face.v1 import face_pb2 as pb
from services.common.face.landmarks import JAW
from services.face.convert import frames_to_proto, state_from_proto, state_to_proto
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, Reason, TrackOptions

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320, 60:400])


def tracked(networks: Networks, pictures: list[npt.NDArray[np.uint8]], **options: int) -> list[FrameFaces]:
    tracker = FaceTracker(networks, TrackOptions(**options))
    return [frame for picture in pictures for frame in tracker.push(picture)] + tracker.finish()


def test_face_measured_periodically(networks) -> None:
    """A face is measured in its first frame and then every so often."""
    pictures = [np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * step, axis=1)) for step in range(8)]

    def measured(every: int) -> list[int]:
        frames = tracked(networks, pictures, embed_every=every)
        return [frame.frame_index for frame in frames if frame.faces[0].embedding is not None]

    assert (measured(0), measured(1), measured(3)) == ([], list(range(8)), [0, 3, 6])


def test_later_face_measured_first_frame(networks) -> None:
    """A face that comes later is measured in its own first frame."""
    grey = np.full_like(PHOTOGRAPH, 128)
    frames = tracked(networks, [*[grey] * 4, *[PHOTOGRAPH] * 4], embed_every=100)
    assert [(frame.frame_index, face.embedding is not None) for frame in frames for face in frame.faces][:2] == [
        (4, True),
        (5, False),
    ]


def moved(picture: np.ndarray, x: float, y: float = 0.0, degrees: float = 0.0, scale: float = 1.0) -> np.ndarray:
    affine = cv2.getRotationMatrix2D((165.0, 120.0), degrees, scale)
    affine[:, 2] += [x, y]
    return cv2.warpAffine(picture, affine, (480, 320), borderMode=cv2.BORDER_REPLICATE)


def test_frames_answered_in_order(networks) -> None:
    """Every frame is answered once in order with a bounded delay."""
    tracker = FaceTracker(networks, TrackOptions(half_width=3), first_frame=100)
    counts = [len(tracker.push(moved(PHOTOGRAPH, 0))) for _ in range(8)]
    assert counts == [0, 0, 0, 1, 1, 1, 1, 1]
    assert [frame.frame_index for frame in tracker.finish()] == [105, 106, 107]


def test_tracking_same_bytes(networks) -> None:
    """The same pictures give the same bytes whatever was tracked before."""
    pictures = [moved(PHOTOGRAPH, 2 * index) for index in range(6)]
    first = tracked(networks, pictures)
    tracked(networks, [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures])
    second = tracked(networks, pictures)
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before.faces[0].landmarks, after.faces[0].landmarks)
        assert before.faces[0].confidence == after.faces[0].confidence


def test_landmarks_subpixel_accuracy(networks) -> None:
    """Landmarks follow the picture to a fraction of a pixel."""
    still = tracked(networks, [moved(PHOTOGRAPH, 0)] * 4)[3].faces[0]
    for degrees, scale in ((0.0, 1.25), (12.0, 1.0)):
        face = tracked(networks, [moved(PHOTOGRAPH, 40.5, degrees=degrees, scale=scale)] * 4)[3].faces[0]
        affine = cv2.getRotationMatrix2D((165.0, 120.0), degrees, scale)
        affine[:, 2] += [40.5, 0.0]
        expected = still.landmarks[:468, :2] @ affine[:, :2].T + affine[:, 2]
        assert np.abs(face.landmarks[:468, :2] - expected).mean() < 0.7
        assert face.pose.roll_degrees == pytest.approx(still.pose.roll_degrees - degrees, abs=1.0)
        assert np.abs(face.mouth_landmarks - still.mouth_landmarks)[:, :2].mean() < 1.2


def test_returning_face_keeps_id(networks) -> None:
    """A face that leaves and comes back keeps its id."""
    places = [0, -30, -60, -90, -120, -150, -180, -220, -260, -300, -340]
    pictures = [moved(PHOTOGRAPH, x) for x in [*places, *[-340] * 4, *places[::-1]]]
    frames = tracked(networks, pictures)
    assert frames[0].faces[0].reason is Reason.DUBBED
    assert not frames[13].faces
    assert {face.face_id for frame in frames for face in frame.faces} == {0}
    assert frames[-1].faces[0].reason is Reason.DUBBED
    assert any(face.reason is Reason.OUT_OF_FRAME for frame in frames for face in frame.faces)


def test_mouth_patch_is_noticed(networks) -> None:
    """A patch over the mouth is noticed from its first frame to its last."""
    face = tracked(networks, [moved(PHOTOGRAPH, 0)])[0].faces[0]
    chin, mouth = face.landmarks[152], face.landmarks[13]
    left = int(face.landmarks[JAW[2], 0])
    pictures = [moved(PHOTOGRAPH, 0) for _ in range(20)]
    for picture in pictures[8:14]:
        picture[int(mouth[1]) - 12 : int(chin[1]) + 10, left - 5 : int(mouth[0]) + 12] = (60, 110, 160)
    reasons = [frame.faces[0].reason for frame in tracked(networks, pictures)]
    covered = [index for index, reason in enumerate(reasons) if reason is Reason.OCCLUDED_MOUTH]
    assert covered == list(range(8, 14))
    assert set(reasons) == {Reason.DUBBED, Reason.OCCLUDED_MOUTH}


def test_max_faces_keeps_larger(networks) -> None:
    """Two faces get two ids and max faces keeps the larger."""
    near = moved(PHOTOGRAPH, 0)[:, :300]
    far = cv2.resize(near, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    both = np.zeros((320, 540, 3), np.uint8)
    both[:, :300], both[: far.shape[0], 300 : 300 + far.shape[1]] = near, far
    frames = tracked(networks, [both] * 4)
    assert [face.face_id for face in frames[-1].faces] == [0, 1]
    assert frames[-1].faces[0].pose.scale > frames[-1].faces[1].pose.scale
    assert [len(frame.faces) for frame in tracked(networks, [both] * 4, max_faces=1)] == [1] * 4


def test_a_small_face_says_so(networks) -> None:
    small = cv2.resize(PHOTOGRAPH, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
    faces = [face for frame in tracked(networks, [small] * 4) for face in frame.faces]
    assert {face.reason for face in faces} == {Reason.FACE_TOO_SMALL}


@pytest.mark.parametrize("size", [(240, 320), (16, 16), (5, 900)])
def test_pictures_without_a_face_have_none(networks, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    assert all(not frame.faces for frame in tracked(networks, [noise] * 2))


def test_nothing_is_smoothed_across_a_cut(networks) -> None:
    other = 255 - moved(PHOTOGRAPH, 0)[::-1, ::-1]
    first, second = moved(PHOTOGRAPH, 0), moved(PHOTOGRAPH, 60, scale=1.2)
    frames = tracked(networks, [first] * 5 + [np.ascontiguousarray(other)] + [second] * 5)
    assert [frame.frame_index for frame in frames if frame.shot_cut] == [5, 6]
    alone = tracked(networks, [second] * 5)
    before, after = frames[6].faces[0].landmarks, alone[0].faces[0].landmarks
    assert np.abs(before - after).max() < 1e-3


def scenes() -> list[npt.NDArray[np.uint8]]:
    """A photograph that moves, is covered by a hand's colour, is cut to noise and comes back, smaller."""
    moving = [np.ascontiguousarray(np.roll(PHOTOGRAPH, 2 * step, axis=1)) for step in range(12)]
    covered = [picture.copy() for picture in moving[6:9]]
    for picture in covered:
        cv2.circle(picture, (170, 170), 45, (205, 150, 130), -1)
    noise = [np.random.default_rng(3).integers(0, 255, PHOTOGRAPH.shape).astype(np.uint8)] * 2
    beside = np.full_like(PHOTOGRAPH, 90)
    beside[80:280, 60:272] = cv2.resize(PHOTOGRAPH, (212, 200), interpolation=cv2.INTER_AREA)
    return [*moving[:6], *covered, *moving[9:], *noise, *([beside] * 4)]


def wire(frames: list[FrameFaces]) -> list[bytes]:
    return [frames_to_proto([frame]).SerializeToString(deterministic=True) for frame in frames]


@pytest.mark.parametrize("half_width", [0, 1, 3])
def test_tracker_goes_on_from_states(networks: Networks, half_width: int) -> None:
    """A tracker that goes on from a state answers the bytes of the tracker that was not interrupted."""
    options = TrackOptions(half_width=half_width, embed_every=3)
    pictures, tracker = scenes(), FaceTracker(networks, options, first_frame=100)
    expected, states = [], []
    for picture in pictures:
        found = tracker.push(picture)
        expected += wire(found)
        if found:
            message = state_to_proto(tracker.state())
            assert message is not None
            states.append(pb.TrackRequest(config=pb.TrackConfig(resume=message)).SerializeToString())
    expected += wire(tracker.finish())
    assert len(states) == len(pictures) - half_width
    for done, state in list(enumerate(states, start=1))[1::4]:
        restored = state_from_proto(pb.TrackRequest.FromString(state), options, None)
        assert restored is not None
        assert restored.next_frame == 100 + done
        again = FaceTracker.resumed(networks, options, restored)
        answered = [frame for picture in pictures[done:] for frame in again.push(picture)] + again.finish()
        assert wire(answered) == expected[done:]


def test_resumed_tracker_answers_sent_frames(networks: Networks) -> None:
    """A frame of the window is answered only if its picture came again."""
    options, tracker = TrackOptions(), FaceTracker(networks, TrackOptions())
    for picture in scenes()[:5]:
        tracker.push(picture)
    again = FaceTracker.resumed(networks, options, tracker.state())
    assert again.finish() == []
    again = FaceTracker.resumed(networks, options, tracker.state())
    again.push(scenes()[2])
    assert [frame.frame_index for frame in again.finish()] == [2]
