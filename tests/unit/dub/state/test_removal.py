"""Removal of a job that shares no artefacts: nothing that the job made stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.state.journal import Journal, OwnBlobs
from gateway.dub.state.removal import remove_job
from gateway.dub.state.workspace import JOURNAL, LOCK, is_running, lock_folder
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.unit.dub.state.test_workspace import KEY

STEPS = 150


def test_lock_is_removed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that locks the folder while another job removes the folder finds nothing there, and loses nothing."""
    folder = tmp_path / KEY
    os.close(lock_folder(folder))
    (folder / JOURNAL).mkdir()
    for name in ("a", f"{JOURNAL}/step", "z"):
        (folder / name).write_bytes(b"some")
    real, left, handles = shutil.rmtree, list[list[str]](), list[int]()

    def rmtree(path: Path, **options: Any) -> None:
        if path != folder:
            real(path, **options)
            return
        left.append(sorted(file.name for file in folder.iterdir()))
        (folder / LOCK).unlink()
        handles.append(lock_folder(folder))
        # As rmtree ends that has removed all that it knew of: the new lock keeps the folder.
        with pytest.raises(OSError, match="not empty"):
            folder.rmdir()

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    remove_job(folder, OwnBlobs(), ArtefactStore(tmp_path / "artefacts"))
    assert left == [[LOCK]]
    assert is_running(folder)
    os.close(handles[0])


def test_all_steps_and_artefacts_deleted(tmp_path: Path) -> None:
    """All steps of a long job are deleted and the artefact whose entry is missing."""
    store, ledger, made = ArtefactStore(tmp_path / "store"), OwnBlobs(), list[ArtefactRef]()
    folder = tmp_path / "job"

    def hold(ref: ArtefactRef) -> bool:
        made.append(ref)
        return ledger.hold(folder, ref)

    journal = Journal(folder / JOURNAL, store, hold)
    for step in range(STEPS):
        journal.record(f"step{step}", {"value": np.array([step])})
    (folder / JOURNAL / f"step{STEPS - 1}").unlink()  # The process stored the artefact, and the disk refused the entry.
    assert all(store.exists(ref) for ref in made)

    freed = remove_job(folder, ledger, store)

    assert freed is not None
    assert freed.blobs == STEPS
    assert not any(store.exists(ref) for ref in made)
    assert not folder.exists()
