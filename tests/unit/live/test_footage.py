"""Tests of the footage of live streams: the frames kept in memory, the speed of footage of any rate, and actors without footage."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.actors.stored import StoredActor
from gateway.dub.records import FACE_RECORD
from gateway.live import footage
from gateway.live.footage import (
    MARKED_FRAMES,
    MAX_FRAMES,
    MIN_FRAMES,
    FootageCache,
    LiveFootage,
    StreamMarks,
    at_motion_rate,
    load_live_footage,
    pictures_of,
    unbroken_spans,
)
from gateway.media.inspection import inspect_video
from gateway.media.reader import VideoReader, to_rgb
from gateway.provenance.claim import stream_statement
from gateway.provenance.watermark.detection import Detector, projected
from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.pattern import RecentMean, reduced
from gateway.provenance.watermark.payload import Payload, watermark_key
from services.common.errors import ActorError, MediaUnsupportedError
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.methods import METHODS, combined, method_named
from services.common.store.artefacts import ArtefactStore
from tests.unit.media.made_footage import VARIABLE_PTS, Clip, make_clip
from tests.unit.provenance.watermark.faces import SeenFace


def faces(num_frames: int, lost: tuple[int, ...] = ()) -> np.ndarray:
    records = np.zeros(num_frames, FACE_RECORD)
    records["frame"] = np.arange(num_frames)
    records["reason"] = common_pb2.FRAME_REASON_DUBBED
    return np.delete(records, list(lost))


def shown(folder: Path, pts: tuple[int, ...], rate: Fraction) -> list[int]:
    """Frames of footage with these times, ticks of 1/12800 s, that a live stream shows."""
    info = inspect_video(make_clip(folder / "clip.mp4", Clip(pts=pts, rate=rate)))
    (run,) = unbroken_spans(faces(len(pts)))
    return at_motion_rate(run, info.video)["frame"].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25, list(range(24))),
        (50, list(range(0, 24, 2))),
        (100, list(range(0, 24, 4))),
        (Fraction(25, 2), [frame // 2 for frame in range(47)]),
    ],
)
def test_frame_index_at_25_fps(tmp_path: Path, rate: Fraction, expected: list[int]) -> None:
    """Frame n of a stream is the footage at n/25 seconds."""
    step = int(12800 / rate)
    assert shown(tmp_path, tuple(range(0, 24 * step, step)), Fraction(rate)) == expected


def test_footage_of_variable_rate_keeps_its_pauses(tmp_path: Path) -> None:
    found = np.array(shown(tmp_path, VARIABLE_PTS, Fraction(25)))
    wanted = VARIABLE_PTS[0] + 512 * np.arange(len(found))
    off = np.abs(np.array(VARIABLE_PTS)[found] - wanted)
    assert (off == np.abs(np.array(VARIABLE_PTS)[:, None] - wanted).min(axis=0)).all()


def test_three_seconds_are_shown_at_most(tmp_path: Path) -> None:
    assert len(shown(tmp_path, tuple(range(0, 200 * 256, 256)), Fraction(50))) == MAX_FRAMES


def test_short_stretches_are_left_out() -> None:
    runs = unbroken_spans(faces(20, lost=(MIN_FRAMES - 1, 12)))
    assert [(run["frame"][0], run["frame"][-1]) for run in runs] == [(5, 11), (13, 19)]


def test_every_frame_has_its_own_picture(tmp_path: Path) -> None:
    info = inspect_video(make_clip(tmp_path / "clip.mp4", Clip()))
    run = faces(12)[[3, 3, 5, 8]]
    with VideoReader(info) as reader:
        every = [to_rgb(frame) for frame in reader.frames(0, 12)]
    found = pictures_of(info, run)
    for picture, number in zip(found, (3, 3, 5, 8), strict=True):
        np.testing.assert_array_equal(picture, every[number])
    assert found[0] is found[1]


NOTHING: Any = None
METHODS_OF_PAIRS = [combined(motion, renderer=renderer) for motion, renderer in product(METHODS, METHODS)]


@pytest.mark.parametrize("method", [name for name in METHODS_OF_PAIRS if not method_named(name).live])
def test_file_method_refused(method: str) -> None:
    """A method for files is refused with the part in the way."""
    row = method_named(method)
    actor = StoredActor("ann", method, None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, {})
    with pytest.raises(ActorError) as caught:
        load_live_footage(actor, NOTHING, 1 << 30)
    said = caught.value.message
    assert said.startswith(f"actor ann is enrolled for {method}, which cannot be used live: the ")
    assert said.endswith("enrol the person for one of: ugc, everybody")
    assert ("of speech after a frame" in said) is (not row.streamed.motion.live and not row.motion.moves_head)
    assert ("frames after a frame" in said) is (row.renderer.frames_after > 0)


def test_killed_reader_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it reads the footage leaves no file."""
    store, folder = ArtefactStore(str(tmp_path / "artefacts")), tmp_path / "temporary"
    folder.mkdir()
    faces = np.zeros(MIN_FRAMES, FACE_RECORD)
    faces["frame"], faces["reason"] = np.arange(MIN_FRAMES), common_pb2.FRAME_REASON_DUBBED
    refs = {
        "faces": store.put_arrays({name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}),
        "footage": store.put_bytes(b"a film of ann"),
    }
    found = []

    def look(path: Path) -> None:
        found.append((path.read_bytes(), list(folder.iterdir())))
        raise MediaUnsupportedError("no video", field="video")

    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(footage, "inspect_video", look)
    with pytest.raises(MediaUnsupportedError):
        load_live_footage(StoredActor("ann", "ugc", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs), store, 1 << 30)
    assert found == [(b"a film of ann", [])]


def test_oversized_pictures_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are larger than a message are refused before they are decoded."""
    store = ArtefactStore(str(tmp_path / "artefacts"))
    faces = np.zeros(MIN_FRAMES, FACE_RECORD)
    faces["frame"], faces["reason"] = np.arange(MIN_FRAMES), common_pb2.FRAME_REASON_DUBBED
    refs = {
        "faces": store.put_arrays({name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}),
        "footage": store.put_bytes(make_clip(tmp_path / "clip.mp4", Clip()).read_bytes()),
    }
    monkeypatch.setattr(VideoReader, "frames", lambda *_: pytest.fail("a frame was decoded"))
    actor = StoredActor("ann", "ugc", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs)
    with pytest.raises(ActorError, match=r"pictures of ann \(96 x 80\) are larger than a message"):
        load_live_footage(actor, store, 3 * 96 * 80 - 1)


ANN: Any = SimpleNamespace(actor_id="ann", artefacts={"enrolment": SimpleNamespace(sha256="e" * 64)})


class Loading:
    """Decoding of footage that goes on until the test lets it end.

    Attributes:
        loads: number of times that footage was decoded.
        begun: set when the decoding begins.
        may_end: the test sets it.
    """

    def __init__(self) -> None:
        self.loads, self.begun, self.may_end = 0, threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> LiveFootage:
        self.loads += 1
        self.begun.set()
        assert self.may_end.wait(60)
        return LiveFootage((np.zeros((4, 4, 3), np.uint8),), NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    made = Loading()
    monkeypatch.setattr(footage, "load_live_footage", made)
    return made


async def test_the_next_stream_of_an_actor_decodes_nothing(loading: Loading) -> None:
    loading.may_end.set()
    performances = FootageCache(NOTHING, 1 << 20)
    assert await performances.of(ANN) is await performances.of(ANN)
    assert loading.loads == 1


async def test_erased_actors_footage_is_dropped(loading: Loading) -> None:
    """Footage of an actor who is erased while it is decoded does not stay in memory."""
    performances = FootageCache(NOTHING, 1 << 20)
    opening = asyncio.create_task(performances.of(ANN))
    assert await asyncio.to_thread(loading.begun.wait, 60)
    performances.clear()
    loading.may_end.set()
    await opening
    await performances.of(ANN)
    assert loading.loads == 2


def marked_footage(astronaut: Path) -> LiveFootage:
    """A face that moves for three seconds, as footage of a live stream."""
    picture = cv2.imread(str(astronaut))
    assert picture is not None
    face = np.ascontiguousarray(picture[60:300, 120:360, ::-1])
    boxes = []
    for index in range(MAX_FRAMES):
        move = np.array([[0.7, 0.0, 2.0 * np.sin(0.07 * index)], [0.0, 0.7, 1.5 * np.cos(0.09 * index)]])
        boxes.append(cv2.warpAffine(face, move, (BOX_SIZE, BOX_SIZE)))
    poses = (HeadPose(1.0, np.eye(3), np.zeros(3)),) * MAX_FRAMES
    return LiveFootage(tuple(boxes), poses, tuple(boxes), (), (), ())


KEY = watermark_key(b"an installation")
MARK = Mark(KEY, Payload.of_video(KEY, stream_statement("12" * 32)))


@pytest.mark.parametrize("first", [1, 40, MARKED_FRAMES - 1, MARKED_FRAMES, 2 * MARKED_FRAMES + 3])
def test_mark_depends_on_the_frame_alone(astronaut: Path, first: int) -> None:
    """A stream that begins later, or leaves frames out, has the marks of one that shows every frame."""
    footage = marked_footage(astronaut)
    whole, late = StreamMarks(MARK, footage), StreamMarks(MARK, footage)
    lights = {index: whole.light(index) for index in range(first + 60)}
    for index in [*range(first, first + 20), *range(first + 20, first + 60, 7)]:
        np.testing.assert_array_equal(late.light(index), lights[index])


def test_stream_mark_is_read(astronaut: Path) -> None:
    """The mark is read from ten seconds out of the middle of a stream, with noise and rounded to whole levels."""
    footage, marks, random = marked_footage(astronaut), StreamMarks(MARK, marked_footage(astronaut)), np.random.default_rng(0)
    moments, luma, pictures = RecentMean(), [], []
    frames = range(180, 430)
    for index in frames:
        grey = cv2.cvtColor(footage.boxes[footage.at(index)], cv2.COLOR_RGB2GRAY).astype(np.float32)
        seen = np.rint(grey + marks.light(index) + random.normal(0.0, 3.0, grey.shape)).clip(0, 255).astype(np.uint8)
        luma.append(projected(seen))
        pictures.append(moments.with_frame((index - frames[0]) / 25.0, reduced(seen)))
    face = SeenFace(np.arange(len(frames)) / 25.0, np.array(luma, np.float32), np.array(pictures, np.uint8))
    found = Detector(KEY).find(face.parts())
    assert found is not None
    assert (found.found, found.payload) == (True, MARK.payload)
