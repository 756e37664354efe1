"""Tests of the mean embeddings of a video's faces, of render boxes that are cut from the footage, and of numbers with gaps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from gateway.dub.analyse import face_records
from gateway.dub.analyse.face_records import FaceMeans, cut_box, embed_every, faces_note, faces_of_note, numbers_of_shots
from gateway.dub.analyse.footage import TrackedFrame
from gateway.dub.learn.analysis import track_footage
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.stages import calls
from services.common.errors import BackendUnavailableError, ContractBrokenError, InvalidRequestError
from services.common.face.crops import BOX_ORIGIN, HeadPose, fit_head_pose, head_template
from services.common.server.retries import RetryPolicy
from services.common.wire.convert import pose_to_proto
from tests.unit.media.made_footage import Clip, make_clip

DUBBED, PROFILE = common_pb2.FRAME_REASON_DUBBED, common_pb2.FRAME_REASON_PROFILE_VIEW


def test_upright_head_box_is_crop() -> None:
    """The render box of an upright head is a plain crop."""
    frame = np.random.default_rng(1).integers(0, 255, (300, 320, 3)).astype(np.uint8)
    pose = HeadPose(1.0, np.eye(3), np.array([128.0 + 20, 160.0 + 10, 0.0]))
    x, y = BOX_ORIGIN
    np.testing.assert_array_equal(cut_box(frame, pose), frame[y + 10 : y + 170, x + 20 : x + 180])


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.3, 4.1])
@pytest.mark.parametrize("place", [(700.0, 600.0), (60.0, 1150.0), (1390.0, 20.0)])
def test_box_of_large_frame_equals_box_of_picture(tmp_path: Path, scale: float, place: tuple[float, float]) -> None:
    """A frame of which only the face is converted to RGB has the box of the whole picture."""
    roll = np.radians(12.0)
    rotation = np.array([[np.cos(roll), -np.sin(roll), 0.0], [np.sin(roll), np.cos(roll), 0.0], [0.0, 0.0, 1.0]])
    pose = HeadPose(scale, rotation, np.array([*place, 0.0]))
    with VideoReader(probe(make_clip(tmp_path / "clip.mp4", Clip(size=(1400, 1200), pts=(0,))))) as reader:
        frame = next(iter(reader))
        found = TrackedFrame(0, face_pb2.FrameFaces(), frame, 4.0).cut_box(pose)
        np.testing.assert_array_equal(found, cut_box(to_rgb(frame), pose))


def face(face_id: int, value: float | None, reason: Any = DUBBED, network: str = "of-tests") -> face_pb2.FaceTrack:
    """A face whose embedding is a hundred and twenty-eight times one number; None: the face was not measured."""
    found = face_pb2.FaceTrack(face_id=face_id, reason=reason)
    if value is not None:
        vector = to_tensor(np.full(128, value, np.float32))
        found.embedding.CopyFrom(face_pb2.FaceEmbedding(network=network, vector=vector))
    return found


def means_of(*faces: face_pb2.FaceTrack) -> dict[int, tuple[float, int]]:
    means = FaceMeans()
    for one in faces:
        means.add(one)
    return {face_id: (float(found.vector[0]), found.frames) for face_id, found in means.faces().items()}


def test_face_mean_of_own_frames() -> None:
    """Each face has the mean of its own frames."""
    assert means_of() == {}
    assert means_of(face(0, 0.25), face(1, 0.5), face(0, None), face(0, 0.75)) == {0: (0.5, 2), 1: (0.5, 1)}


def test_usable_frames_count_alone() -> None:
    """Frames that can be dubbed count alone if there are enough."""
    usable, turned = [face(0, 0.25)] * 5, [face(0, 0.75, PROFILE)] * 5
    assert means_of(*usable, *turned) == {0: (0.25, 5)}
    assert means_of(*usable[:4], *turned[:4]) == {0: (0.5, 8)}
    assert means_of(*turned) == {0: (0.75, 5)}


def test_windows_follow_the_track() -> None:
    """A face that becomes another face has windows of both; a rest that is too short belongs to the window before."""
    means = FaceMeans()
    for value in [0.25] * 10 + [0.75] * 8:
        means.add(face(0, value))
    (found,) = means.faces().values()
    assert [float(part[0]) for part in found.windows] == [0.25, 0.25, 0.75]
    assert found.vector[0] == pytest.approx((10 * 0.25 + 8 * 0.75) / 18)


def test_windows_grow_with_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long video has longer windows, not more."""
    monkeypatch.setattr(face_records, "_MOST_WINDOWS", 4)
    means = FaceMeans()
    for number in range(1000):
        means.add(face(0, float(number)))
    (found,) = means.faces().values()
    assert len(found.windows) <= 4
    assert [float(part[0]) for part in found.windows] == sorted(float(part[0]) for part in found.windows)


def test_embeddings_that_break_the_contract_are_refused() -> None:
    with pytest.raises(ContractBrokenError, match="two networks for one video: of-tests, another"):
        means_of(face(0, 0.5), face(0, 0.5, network="another"))
    wrong = face(0, 0.5)
    wrong.embedding.vector.CopyFrom(to_tensor(np.zeros(64, np.float32)))
    with pytest.raises(InvalidRequestError, match="expected shape"):
        means_of(wrong)


def test_faces_read_from_journal() -> None:
    """Faces come back from the note of a pass."""
    means = FaceMeans()
    means.add(face(3, 0.125))
    (found,) = (faces_of_note(faces_note(means.faces())) or {}).values()
    assert (found.network, found.frames, found.vector.tolist(), found.windows) == ("of-tests", 1, [0.125] * 128, ())
    for _ in range(5):
        means.add(face(3, 0.125))
    (found,) = (faces_of_note(faces_note(means.faces())) or {}).values()
    assert [part.tolist() for part in found.windows] == [[0.125] * 128]
    for damaged in (None, 5, [[1, 2]], [["x", "n", "A", 1]], "note"):
        assert faces_of_note(damaged) is None


def test_means_go_on_from_a_note() -> None:
    """Sums that go on from a note have the bytes of sums that were never interrupted."""
    frames = [face(0, 0.1), face(1, 0.3, PROFILE), face(0, 0.7), face(1, 0.9)] * 7
    whole, first, second = FaceMeans(), FaceMeans(), FaceMeans()
    for one in frames:
        whole.add(one)
    for one in frames[:15]:
        first.add(one)
    second.resume(json.loads(json.dumps(first.note())))
    for one in frames[15:]:
        second.add(one)
    assert faces_note(second.faces()) == faces_note(whole.faces())
    for damaged in (None, {}, {"network": "n", "sums": [[0, True, 1, "AAAA", []]]}, {"network": "n", "sums": [[0]]}):
        with pytest.raises(ValueError, match=r"."):
            second.resume(damaged)


@pytest.mark.parametrize(("frames", "every"), [(1, 1), (40, 1), (64, 2), (250, 7), (10_000, 25)])
def test_long_videos_have_more_frames_between_two_embeddings(frames: int, every: int) -> None:
    assert embed_every(frames) == every


class Tracker:
    """A face stage that finds one face in every frame, and measures it where it is asked to."""

    face_model = ""
    call_deadline_s: float | None = None

    def __init__(self, *, measures: bool = True) -> None:
        self.asked: list[int] = []
        self._measures = measures

    async def stream(self, rpc: Any, requests: AsyncIterator[face_pb2.TrackRequest]) -> AsyncIterator[face_pb2.TrackResponse]:
        config = (await anext(requests)).config
        self.asked.append(config.embed_every)
        pose = fit_head_pose(head_template() * 0.2 + 20)
        async for request in requests:
            index = request.frame.frame_index
            found = face(0, 0.5 if self._measures and config.embed_every and index % config.embed_every == 0 else None)
            found.box.extend([10, 10, 20, 20])
            found.landmarks.CopyFrom(to_tensor(np.zeros((478, 3), np.float32)))
            found.mouth_landmarks.CopyFrom(to_tensor(np.zeros((59, 3), np.float32)))
            found.pose.CopyFrom(pose_to_proto(pose))
            yield face_pb2.TrackResponse(frames=[face_pb2.FrameFaces(frame_index=index, faces=[found])])


async def test_earlier_face_stage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an installation is upgraded, a dub that needs embeddings waits for the new face stage. No other dub does."""
    monkeypatch.setattr(calls, "JOB_POLICY", RetryPolicy(max_attempts=2, initial_backoff_s=0.01))
    info = probe(make_clip(tmp_path / "clip.mp4", Clip()))
    stages: Any = Tracker(measures=False)
    for embed in (False, True):
        with Workspace(tmp_path / f"job {embed}") as workspace:
            tracked = track_footage(stages, info, workspace, threads=1, on_frame=lambda _: None, embed=embed)
            if not embed:
                assert (await tracked).embeddings == {}
                continue
            with pytest.raises(BackendUnavailableError, match="from the same version of dubstage"):
                await tracked
    assert len(stages.asked) == 3


async def test_measured_faces_are_kept(tmp_path: Path) -> None:
    """A finished pass keeps the faces and one that measured none is done again."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip()))
    stages: Any = Tracker()

    async def faces(*, embed: bool) -> list[int]:
        with Workspace(tmp_path / "job") as workspace:
            index = await track_footage(stages, info, workspace, threads=1, on_frame=lambda _: None, embed=embed)
            assert not workspace.redone
            return [found.frames for found in index.embeddings.values()]

    assert await faces(embed=False) == []
    measured = await faces(embed=True)
    assert measured[0] >= 5
    # A run that goes on takes what the pass kept.
    assert await faces(embed=True) == measured
    assert await faces(embed=False) == measured
    assert stages.asked == [0, embed_every(info.video.num_frames)]


def test_numbers_have_gaps_at_cuts() -> None:
    assert numbers_of_shots(np.array([3, 4, 5, 9, 10, 11]), (0, 5, 7, 11)).tolist() == [4, 5, 7, 12, 13, 15]
    assert numbers_of_shots(np.array([3, 4]), ()).tolist() == [3, 4]
