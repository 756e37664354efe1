"""Tests of the last pass: which segments of a scene it reads and which it renders."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.analyse.face_records import FaceIndex, TrackedVideo
from gateway.dub.render.all_windows import rendered_windows
from gateway.dub.render.composite import VideoCompositor, Windows
from gateway.dub.render.segments import SEGMENT_FRAMES, SegmentStore, segments_of
from gateway.dub.state.journal import Journal
from gateway.dub.state.records import FACE_RECORD, RecordFile
from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.writer import VideoWriter
from gateway.stages.timing import StageClock
from services.common.errors import StorageFullError
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.store.tensor_bytes import NamedArrays
from tests.unit.media.made_footage import Clip, make_clip

NUM_FRAMES = 4 * SEGMENT_FRAMES + 7


class CountingStore(ArtefactStore):
    """Store that counts how often each artefact is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: Counter[str] = Counter()

    def get_arrays(self, ref: ArtefactRef, *, max_bytes: int | None = None) -> NamedArrays:
        self.reads[ref.sha256] += 1
        return super().get_arrays(ref, max_bytes=max_bytes)


class Scene:
    """A scene whose video is written again and again; it has no faces."""

    def __init__(self, folder: Path, faces: RecordFile) -> None:
        self._folder = folder
        info = probe(make_clip(folder / "clip.mp4", Clip(pts=tuple(range(0, NUM_FRAMES * 512, 512)))))
        none = np.empty(0, np.int32)
        index = FaceIndex(none, none, none, np.empty(0, np.float32), np.empty((0, 2), np.float32), (), NUM_FRAMES)
        self._video = TrackedVideo(info, index, faces)
        self.store = CountingStore(folder / "artefacts")
        self._journal = Journal(folder / "journal", self.store)
        self._segments: SegmentStore | None = None
        self.is_closed = False

    def _store(self, writer: VideoWriter, job: str) -> SegmentStore:
        known = {"choice": writer.choice, "parameters": writer.parameters, "threads": 1}
        return SegmentStore(journal=self._journal, job=job, mouths=[], mark=None, label=None, **known)  # type: ignore[arg-type]

    def write(self, name: str) -> list[range]:
        """Write the video, and return the frames that were rendered."""
        rendered: list[range] = []

        def windows(missing: Sequence[range]) -> Windows:
            rendered.extend(missing)
            return rendered_windows([], NUM_FRAMES, missing)

        done: list[int] = []
        with VideoWriter(self._folder / name, self._video.info, settings=WriteSettings(codec="h264"), segmented=True) as writer:
            self._segments = self._store(writer, "job")
            work = VideoCompositor(self._video).write_segments(
                writer, windows, self._segments, threads=1, clock=StageClock(), on_progress=done.append
            )
            asyncio.run(work)
        assert done == sorted(done)
        assert done[-1] == NUM_FRAMES
        return rendered

    async def write_until(self, error: BaseException, *, segmented: bool) -> None:
        """Write the video until the first window is written, whose progress raises an error."""

        async def windows(frames: Sequence[range] | None = None) -> AsyncGenerator[Any, None]:
            self.is_closed = False
            try:
                async for span in rendered_windows([], NUM_FRAMES, frames):
                    yield span
            finally:
                self.is_closed = True

        def stop(_: int) -> None:
            raise error

        compositor, settings = VideoCompositor(self._video), WriteSettings(codec="h264", overwrite=True)
        with VideoWriter(self._folder / "out.mp4", self._video.info, settings=settings, segmented=segmented) as writer:
            if segmented:
                segments = self._store(writer, "other")
                await compositor.write_segments(writer, windows, segments, threads=1, clock=StageClock(), on_progress=stop)
            else:
                await compositor.write(writer, windows(), threads=1, clock=StageClock(), on_progress=stop)

    def blob(self, frames: range) -> Path:
        """Return the file with the artefact of a segment."""
        assert self._segments is not None
        entry = self._folder / "journal" / self._segments.key(frames)
        return Path(json.loads(entry.read_bytes())["uri"].removeprefix("file://"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with closing(RecordFile(tmp_path / "faces", FACE_RECORD)) as faces:
        yield Scene(tmp_path, faces)


def test_kept_segments_are_read_once(scene: Scene, tmp_path: Path) -> None:
    segments = segments_of(NUM_FRAMES)
    assert scene.write("first.mp4") == segments
    assert not scene.store.reads
    assert scene.write("again.mp4") == []
    assert sorted(scene.store.reads.values()) == [1] * len(segments)
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


@pytest.mark.parametrize("numbers", [(0,), (1, 2), (0, 2, 4), (4,)])
def test_damaged_segments_are_rendered_anew(scene: Scene, tmp_path: Path, numbers: Sequence[int]) -> None:
    """Segments whose artefacts are damaged or gone are rendered anew, and the video is the same."""
    lost = [segments_of(NUM_FRAMES)[number] for number in numbers]
    scene.write("first.mp4")
    scene.blob(lost[0]).unlink()
    for frames in lost[1:]:
        scene.blob(frames).chmod(0o600)
        scene.blob(frames).write_bytes(b"damaged")
    assert scene.write("again.mp4") == lost
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


@pytest.mark.parametrize("segmented", [False, True])
async def test_error_ends_the_windows(scene: Scene, segmented: bool) -> None:
    """When the pass has ended with an error, or is cancelled, no window is in work any more."""
    for error in (StorageFullError("full"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await scene.write_until(error, segmented=segmented)
        assert scene.is_closed
