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
from gateway.live import performance
from gateway.live.performance import MIN_FRAMES, load_performance
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
        load_performance(actor, NOTHING)
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
        load_performance(StoredActor("ann", "ugc", None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, refs), store)
    assert found == [(b"a film of ann", [])]
