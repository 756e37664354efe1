"""Which actors can be shown live, which of their footage, and what is told of the others."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from gateway.actors.stored import StoredActor
from gateway.live import performance
from gateway.live.performance import load_performance
from gateway.live.stretch import MAX_FRAMES, MIN_FRAMES
from gateway.media.reader import VideoReader
from gateway.methods import METHODS, combined, method_named
from gateway.pipeline.records import FACE_RECORD
from services.common.errors import ActorNotReady, MediaUnsupported
from services.common.store.artefacts import ArtefactStore

NOTHING: Any = None
METHODS_OF_PAIRS = [combined(motion, renderer=renderer) for motion, renderer in product(METHODS, METHODS)]


@pytest.mark.parametrize("method", [name for name in METHODS_OF_PAIRS if not method_named(name).live])
def test_a_method_for_files_is_refused_with_the_part_in_the_way(method: str) -> None:
    row = method_named(method)
    actor = StoredActor("ann", method, None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, {})
    with pytest.raises(ActorNotReady) as caught:
        load_performance(actor, NOTHING, 1 << 30)
    said = caught.value.message
    assert said.startswith(f"actor ann is enrolled for {method}, which cannot be used live: the ")
    assert said.endswith("enrol the person for one of: ugc, everybody")
    assert ("of speech after a frame" in said) is (not row.streamed.motion.live and not row.motion.moves_head)
    assert ("frames after a frame" in said) is (row.renderer.frames_after > 0)


def test_a_process_that_is_killed_while_it_reads_the_footage_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        raise MediaUnsupported("no film", field="video")

    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(performance, "inspect_film", look)
    with pytest.raises(MediaUnsupported):
        load_performance(StoredActor("ann", "ugc", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs), store, 1 << 30)
    assert found == [(b"a film of ann", [])]


def film_at(path: Path, times: list[int], ticks_per_second: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A film whose frames are of one colour each, and the later the brighter.

    Args:
        path: where the film is written.
        times: time of each frame, ticks.
        ticks_per_second: unit of the times.
        size: width and height.
    """
    with av.open(str(path), "w") as writer:
        stream = writer.add_stream("ffv1", rate=ticks_per_second)
        stream.width, stream.height, stream.pix_fmt = *size, "gray"
        stream.codec_context.time_base = Fraction(1, ticks_per_second)
        for number, ticks in enumerate(times):
            picture = av.VideoFrame.from_ndarray(np.full(size[::-1], number, np.uint8), format="gray")
            picture.pts, picture.time_base = ticks, Fraction(1, ticks_per_second)
            writer.mux(stream.encode(picture))
        writer.mux(stream.encode(None))
    return path.read_bytes()


def enrolled(store: ArtefactStore, film: bytes, usable: np.ndarray) -> StoredActor:
    """An actor in whose footage these frames are usable. The render box of frame n has the value n."""
    faces = np.zeros(len(usable), FACE_RECORD)
    faces["frame"], faces["reason"], faces["scale"], faces["rotation"] = usable, common_pb2.FRAME_REASON_DUBBED, 1.0, np.eye(3)
    faces["translation"][:, 0], faces["pixels"] = usable, usable[:, None, None, None]
    refs = {
        "faces": store.put_arrays({name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}),
        "footage": store.put_bytes(film),
    }
    person: Any = SimpleNamespace(geometry=NOTHING)
    return StoredActor("ann", "ugc", None, "0" * 64, "2026-02-01T00:00:00Z", person, refs)


@pytest.fixture
def no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "lower_face_mask", lambda geometry, pose: np.zeros((160, 160), np.uint8))


SLOWING = [*range(0, 400, 40), *range(400, 2000, 100)]
"""Times in milliseconds: 25 frames/s for 0.4 s, then 10 frames/s."""


@pytest.mark.usefixtures("no_masks")
@pytest.mark.parametrize(
    ("times", "ticks_per_second", "shown"),
    [
        ([*range(100)], 25, [*range(75)]),
        ([*range(40)], 25, [*range(40)]),
        ([*range(200)], 50, [*range(0, 150, 2)]),
        ([*range(40)], 12, [round(12 * n / 25) for n in range(75)]),
        ([1001 * n for n in range(100)], 30000, [round(30000 / 1001 * n / 25) for n in range(75)]),
        (SLOWING, 1000, [int(np.argmin(np.abs(np.array(SLOWING) - 40 * n))) for n in range(49)]),
    ],
)
def test_footage_is_played_at_its_own_speed_for_at_most_three_seconds(
    tmp_path: Path, times: list[int], ticks_per_second: int, shown: list[int]
) -> None:
    store = ArtefactStore(str(tmp_path / "artefacts"))
    # The first frames are not usable: time begins with the stretch.
    film = film_at(tmp_path / "film.mkv", [0, *(ticks + ticks_per_second // 25 + 1 for ticks in times)], ticks_per_second)
    actor = enrolled(store, film, np.arange(1, len(times) + 1))
    found = load_performance(actor, store, 1 << 20)
    assert [int(frame[0, 0, 0]) - 1 for frame in found.frames] == shown
    assert [int(pose.translation[0]) - 1 for pose in found.poses] == shown
    assert [int(box[0, 0, 0]) - 1 for box in found.boxes] == shown
    assert len(found.masks) == len(found.filmed) == len(shown) <= MAX_FRAMES


@pytest.mark.usefixtures("no_masks")
def test_the_longest_stretch_is_shown(tmp_path: Path) -> None:
    store = ArtefactStore(str(tmp_path / "artefacts"))
    film = film_at(tmp_path / "film.mkv", [*range(30)], 25)
    found = load_performance(enrolled(store, film, np.r_[0:8, 10:25, 26:30]), store, 1 << 20)
    assert [int(frame[0, 0, 0]) for frame in found.frames] == [*range(10, 25)]


def test_pictures_that_are_larger_than_a_message_are_refused_before_a_frame_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frames(*_: Any) -> None:
        raise AssertionError("a frame is decoded")

    store = ArtefactStore(str(tmp_path / "artefacts"))
    actor = enrolled(store, film_at(tmp_path / "film.mkv", [*range(10)], 25, (640, 360)), np.arange(10))
    monkeypatch.setattr(VideoReader, "frames", frames)
    with pytest.raises(ActorNotReady, match=r"pictures of ann \(640 x 360\) are larger than a message may be"):
        load_performance(actor, store, 640 * 360 * 3 - 1)
