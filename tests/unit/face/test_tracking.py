"""Tests of the tracker on a real photograph that is moved, covered and taken away, and of face embeddings of real pictures."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from skimage.data import astronaut

from dubstage.face.v1 import face_pb2 as pb
from services.common.face.crops import HeadPose, apply_affine, fit_head_pose, head_template
from services.common.face.landmarks import JAW, NUM_LANDMARKS
from services.common.store.exported_networks import networks_in
from services.face.convert import frames_to_proto, state_from_proto, state_to_proto
from services.face.smoothing import RawFace
from services.face.tracking import (
    EMBEDDING_SIZE,
    NETWORK,
    SIDE,
    WEIGHTS,
    EmbeddingNetwork,
    FaceTracker,
    IdentityBook,
    Networks,
    ShotDetector,
    aligned_crop,
)
from services.face.types import FrameFaces, Reason, TrackOptions

PHOTOGRAPH = np.ascontiguousarray(astronaut()[:320, 60:400])
HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])


def scene(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (9, 16, 3)).astype(np.uint8)
    return cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC)


def cuts(pictures: list[np.ndarray]) -> list[int]:
    detector = ShotDetector()
    return [index for index, picture in enumerate(pictures) if detector.push(picture)]


def test_a_change_of_scene_is_a_cut() -> None:
    assert cuts([scene(1)] * 5 + [scene(2)] * 5 + [scene(3)] * 2) == [5, 10]


def test_the_first_frame_is_none() -> None:
    assert cuts([scene(1)]) == []


def test_a_pan_is_none() -> None:
    wide = np.concatenate([scene(1), scene(4)], axis=1)
    assert cuts([np.ascontiguousarray(wide[:, x : x + 640]) for x in range(0, 640, 20)]) == []


def test_slow_light_is_none() -> None:
    assert cuts([(scene(1) * gain).astype(np.uint8) for gain in np.linspace(1.0, 0.3, 25)]) == []


def test_tiny_pictures_are_taken() -> None:
    assert cuts([np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)]) == []


@pytest.fixture(scope="module")
def networks():
    loaded = Networks()
    yield loaded
    loaded.close()


def tracked(networks: Networks, pictures: list[npt.NDArray[np.uint8]], **options: int) -> list[FrameFaces]:
    tracker = FaceTracker(networks, TrackOptions(**options))
    return [frame for picture in pictures for frame in tracker.push(picture)] + tracker.finish()


def embedding(networks: Networks, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    (face,) = tracked(networks, [picture], embed_every=1)[0].faces
    assert face.embedding is not None
    assert face.embedding.network == NETWORK
    assert face.embedding.vector.shape == (EMBEDDING_SIZE,)
    return face.embedding.vector


def video(path: Path, *frames: int) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as reader:
        pictures = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    return [cv2.resize(pictures[frame], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for frame in frames]


def test_embedding_file_matches_description() -> None:
    """The file is small and is the one that its description names."""
    (network,) = networks_in(WEIGHTS.parent)
    assert network.path == WEIGHTS
    assert WEIGHTS.stat().st_size <= 4_500_000
    description = json.loads((WEIGHTS.parent / "face_embedding.json").read_text())
    assert description["files"][WEIGHTS.name]["sha256"] == network.sha256
    assert description["parity"]["largest_difference"] <= description["parity"]["allowed"]
    sizes: Counter[int] = Counter()
    graph = onnx.load_from_string(gzip.decompress(WEIGHTS.read_bytes())).graph
    for tensor in graph.initializer:
        sizes[tensor.data_type] += int(np.prod(tensor.dims))
    assert sizes[onnx.TensorProto.UINT8] > 10 * sizes[onnx.TensorProto.FLOAT]
    # No runtime takes the network for a quantised one, which each kind of processor would compute in another way.
    assert not {node.op_type for node in graph.node} & {"DequantizeLinear", "QuantizeLinear"}


def test_network_equals_package() -> None:
    """Numbers of the PyTorch reference (research/face/embedding.py) for its first random picture."""
    from research.face.embedding import pictures

    session = EmbeddingNetwork()._session
    (found,) = session.run(None, {"crops": pictures(1)})
    np.testing.assert_allclose(found[0, :4], [-0.061205, 0.116304, 0.064644, -0.010075], atol=2e-5)
    assert np.linalg.norm(found[0]) == pytest.approx(1.310869, abs=1e-4)


def test_eyes_and_mouth_in_crop(networks) -> None:
    """Eyes and mouth lie at the same places of the crop however the head is held."""
    (face,) = tracked(networks, [PHOTOGRAPH])[0].faces
    for degrees, scale in ((0.0, 1.0), (25.0, 0.7), (-30.0, 1.6)):
        affine = cv2.getRotationMatrix2D((170.0, 120.0), degrees, scale)
        landmarks = face.landmarks.copy()
        landmarks[:, :2] = apply_affine(affine, landmarks)
        landmarks[:, 2] *= scale
        turned = cv2.warpAffine(PHOTOGRAPH, affine, (340, 320), borderMode=cv2.BORDER_REPLICATE)
        crop = aligned_crop(turned, landmarks, fit_head_pose(landmarks))
        assert crop.shape == (SIDE, SIDE, 3)
        upright = aligned_crop(PHOTOGRAPH, face.landmarks, face.pose)
        assert np.abs(crop.astype(float) - upright).mean() < 8


def test_embedding_separates_two_people(networks, carphone: Path) -> None:
    """One face stays near itself and two people are far apart."""
    woman = embedding(networks, PHOTOGRAPH)
    for degrees, scale, light in ((20.0, 1.0, 1.0), (-15.0, 0.6, 1.0), (0.0, 1.3, 0.7)):
        affine = cv2.getRotationMatrix2D((170.0, 120.0), degrees, scale)
        other = cv2.warpAffine(PHOTOGRAPH, affine, (340, 320), borderMode=cv2.BORDER_REPLICATE)
        assert np.linalg.norm(embedding(networks, (other * light).astype(np.uint8)) - woman) < 0.43
    man = [embedding(networks, picture) for picture in video(carphone, 0, 40, 100)]
    assert max(np.linalg.norm(one - other) for one in man for other in man) < 0.5
    assert min(np.linalg.norm(one - woman) for one in man) > 0.6


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
