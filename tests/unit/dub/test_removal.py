"""Removal of a job that shares no artefacts: nothing that the job made stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gateway.dub.journal import Journal, OwnBlobs
from gateway.dub.removal import remove_job
from gateway.dub.workspace import JOURNAL
from services.common.store.artefacts import ArtefactRef, ArtefactStore

STEPS = 150


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
