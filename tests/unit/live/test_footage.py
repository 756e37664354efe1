"""Tests of the footage of live streams: actors without footage, the footage kept for the next stream, and the marks of streams."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.actors.stored import StoredActor
from gateway.dub.learn.live_span import MIN_FRAMES
from gateway.dub.state.records import FACE_RECORD
from gateway.live import footage
from gateway.live.footage import MARKED_FRAMES, FootageCache, LiveFootage, StreamMarks, load_live_footage
from gateway.media.reader import VideoReader
from gateway.provenance.claim import stream_statement
from gateway.provenance.watermark.detection import Detector, projected
from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.pattern import RecentMean, reduced
from gateway.provenance.watermark.payload import Payload, watermark_key
from services.common.errors import ActorError, MediaUnsupportedError
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.methods import METHODS, RENDERERS, combined, method_named
from services.common.store.artefacts import ArtefactStore
from tests.unit.media.made_footage import Clip, make_clip
from tests.unit.provenance.watermark.faces import SeenFace

NOTHING: Any = None
METHODS_OF_PAIRS = [combined(motion, renderer=renderer) for motion, renderer in product(METHODS, RENDERERS)]
ANN: Any = SimpleNamespace(actor_id="ann", artefacts={"enrolment": SimpleNamespace(sha256="e" * 64)})
KEY = watermark_key(b"an installation")
MARK = Mark(KEY, Payload.of_video(KEY, stream_statement("12" * 32)))


@pytest.mark.parametrize("method", [name for name in METHODS_OF_PAIRS if not method_named(name).live])
def test_file_method_refused(method: str) -> None:
    """A method for files is refused with the part in the way."""
    row = method_named(method)
    actor = StoredActor("ann", method, None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, {})
    with pytest.raises(ActorError) as caught:
        load_live_footage(actor, NOTHING, 1 << 30)
    said = caught.value.message
    assert said.startswith(f"actor ann is enrolled for {method}, which cannot be used live: the ")
    assert said.endswith("enrol the person for one of: dubstage, ugc, everybody")
    assert ("of speech after a frame" in said) is (not row.streamed.motion.live and not row.motion.moves_head)
    assert ("frames after a frame" in said) is (row.renderer.frames_after > 0)


@pytest.mark.parametrize(("scale", "expected"), [(0.6, 1), (1.1, 1), (1.3, 2), (1.9, 2), (3.7, 2)])
def test_detail_as_fine_as_the_footage(scale: float, expected: int) -> None:
    """Mouths have one or two pixels of detail per box pixel, by the size of the face in the footage."""
    span: Any = SimpleNamespace(scale=np.array([0.9, 1.0, 1.1]) * scale)
    assert LiveFootage(span, NOTHING).detail_scale == expected


def test_killed_reader_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it reads the footage leaves no file."""
    store, folder = ArtefactStore(str(tmp_path / "artefacts")), tmp_path / "temporary"
    folder.mkdir()
    faces = np.zeros(MIN_FRAMES, FACE_RECORD)
    faces["frame"], faces["reason"] = np.arange(MIN_FRAMES), common_pb2.FRAME_REASON_DUBBED
    refs = {
        "faces": store.put_arrays({name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}),
        "footage": store.put_bytes(b"a video of ann"),
    }
    found = []

    def look(path: Path) -> None:
        found.append((path.read_bytes(), list(folder.iterdir())))
        raise MediaUnsupportedError("no video", field="video")

    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(footage, "inspect_video", look)
    with pytest.raises(MediaUnsupportedError):
        load_live_footage(StoredActor("ann", "dubstage", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs), store, 1 << 30)
    assert found == [(b"a video of ann", [])]


def test_oversized_pictures_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are larger than a message are refused before they are decoded."""
    store = ArtefactStore(str(tmp_path / "artefacts"))
    faces = np.zeros(MIN_FRAMES, FACE_RECORD)
    faces["frame"], faces["reason"] = np.arange(MIN_FRAMES), common_pb2.FRAME_REASON_DUBBED
    refs = {
        "faces": store.put_arrays({name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}),
        "footage": store.put_bytes(make_clip(tmp_path / "clip.mp4", Clip()).read_bytes()),
    }
    monkeypatch.setattr(VideoReader, "frames_from", lambda *_: pytest.fail("a frame was decoded"))
    actor = StoredActor("ann", "dubstage", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs)
    with pytest.raises(ActorError, match=r"pictures of ann \(96 x 80\) are larger than a message"):
        load_live_footage(actor, store, 3 * 96 * 80 - 1)


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
        return LiveFootage(NOTHING, NOTHING)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    made = Loading()
    monkeypatch.setattr(footage, "load_live_footage", made)
    return made


async def test_the_next_stream_of_an_actor_decodes_nothing(loading: Loading) -> None:
    loading.may_end.set()
    cache = FootageCache(NOTHING, 1 << 20)
    assert await cache.of(ANN) is await cache.of(ANN)
    assert loading.loads == 1


async def test_erased_actors_footage_is_dropped(loading: Loading) -> None:
    """Footage of an actor who is erased while it is decoded does not stay in memory."""
    cache = FootageCache(NOTHING, 1 << 20)
    opening = asyncio.create_task(cache.of(ANN))
    assert await asyncio.to_thread(loading.begun.wait, 60)
    cache.clear()
    loading.may_end.set()
    await opening
    await cache.of(ANN)
    assert loading.loads == 2


class MarkedFootage:
    """A face that moves for three seconds, and back, as footage of a live stream."""

    def __init__(self, face: np.ndarray) -> None:
        self.boxes = []
        for index in range(75):
            move = np.array([[0.7, 0.0, 2.0 * np.sin(0.07 * index)], [0.0, 0.7, 1.5 * np.cos(0.09 * index)]])
            self.boxes.append(cv2.warpAffine(face, move, (BOX_SIZE, BOX_SIZE)))

    def box(self, index: int) -> np.ndarray:
        place = index % 148
        return self.boxes[place if place < 75 else 148 - place]

    def pose(self, index: int) -> HeadPose:
        return HeadPose(1.0, np.eye(3), np.zeros(3))


def marked_footage(astronaut: Path) -> Any:
    picture = cv2.imread(str(astronaut))
    assert picture is not None
    return MarkedFootage(np.ascontiguousarray(picture[60:300, 120:360, ::-1]))


@pytest.mark.parametrize("first", [1, 40, MARKED_FRAMES - 1, MARKED_FRAMES, 2 * MARKED_FRAMES + 3])
def test_mark_depends_on_the_frame_alone(astronaut: Path, first: int) -> None:
    """A stream that begins later, or leaves frames out, has the marks of one that shows every frame."""
    footage = marked_footage(astronaut)
    whole, late = StreamMarks(MARK, footage), StreamMarks(MARK, footage)
    lights = {index: whole.light(index) for index in range(first + 60)}
    for index in [*range(first, first + 20), *range(first + 20, first + 60, 7)]:
        np.testing.assert_array_equal(late.light(index), lights[index])


def test_marks_after_eight_hours(astronaut: Path) -> None:
    """Streams that began at different times have the same marks after eight hours, and remember little."""
    footage, night = marked_footage(astronaut), 8 * 3600 * 25
    early, late = StreamMarks(MARK, footage), StreamMarks(MARK, footage)
    for index in range(night - 300, night):
        early.light(index)
    for index in range(night, night + 5):
        np.testing.assert_array_equal(late.light(index), early.light(index))
    assert len(early._parts) <= 2


def test_stream_mark_is_read(astronaut: Path) -> None:
    """The mark is read from ten seconds out of the middle of a stream, with noise and rounded to whole levels."""
    footage, marks, random = marked_footage(astronaut), StreamMarks(MARK, marked_footage(astronaut)), np.random.default_rng(0)
    moments, luma, pictures = RecentMean(), [], []
    frames = range(180, 430)
    for index in frames:
        grey = cv2.cvtColor(footage.box(index), cv2.COLOR_RGB2GRAY).astype(np.float32)
        seen = np.rint(grey + marks.light(index) + random.normal(0.0, 3.0, grey.shape)).clip(0, 255).astype(np.uint8)
        luma.append(projected(seen))
        pictures.append(moments.with_frame((index - frames[0]) / 25.0, reduced(seen)))
    face = SeenFace(np.arange(len(frames)) / 25.0, np.array(luma, np.float32), np.array(pictures, np.uint8))
    found = Detector(KEY).find(face.parts())
    assert found is not None
    assert (found.found, found.payload) == (True, MARK.payload)
