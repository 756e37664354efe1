"""Which actors can be shown live, and what is told of the others."""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from gateway.actors.stored import StoredActor
from gateway.dub.records import FACE_RECORD
from gateway.live import performance
from gateway.live.footage_frames import MIN_FRAMES
from gateway.live.performance import load_performance
from gateway.media.reader import VideoReader
from gateway.methods import METHODS, combined, method_named
from services.common.errors import ActorNotReady, MediaUnsupported
from services.common.store.artefacts import ArtefactStore
from tests.unit.media.made_footage import Clip, make_clip

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


def test_pictures_that_are_larger_than_a_message_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtefactStore(str(tmp_path / "artefacts"))
    faces = np.zeros(MIN_FRAMES, FACE_RECORD)
    faces["frame"], faces["reason"] = np.arange(MIN_FRAMES), common_pb2.FRAME_REASON_DUBBED
    refs = {
        "faces": store.put_arrays({name: faces[name].copy() for name in FACE_RECORD.names or () if name != "landmarks"}),
        "footage": store.put_bytes(make_clip(tmp_path / "clip.mp4", Clip()).read_bytes()),
    }
    monkeypatch.setattr(VideoReader, "frames", lambda *_: pytest.fail("a frame was decoded"))
    actor = StoredActor("ann", "ugc", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs)
    with pytest.raises(ActorNotReady, match=r"pictures of ann \(96 x 80\) are larger than a message"):
        load_performance(actor, store, 3 * 96 * 80 - 1)
