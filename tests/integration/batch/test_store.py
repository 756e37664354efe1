"""The store of batches while another process writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord
from services.common.files import PARTIAL
from tests.unit.batch.test_store import SHOTS, folder, store

__all__ = ["folder", "store"]


def test_killed_writer_keeps_old_record(store: BatchStore, folder: Path) -> None:
    """A writer that is killed leaves the old record."""
    store.put("night", ShotRecord(id="s1", frames=7))
    code = (
        "import os, sys\n"
        "from gateway.batch.store import BatchStore\n"
        "from gateway.batch.types import ShotRecord\n"
        "os.replace = lambda *names: os._exit(9)\n"
        f"BatchStore({store.url!r}).put('night', ShotRecord(id='s1', frames=8))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert [path.name.startswith(PARTIAL) for path in sorted((folder / "shots").iterdir())] == [True, False]
    assert store.record("night", "s1").frames == 7
    assert store.records("night")[1].frames == 7


def test_reader_sees_record_during_writes(store: BatchStore) -> None:
    """A reader never misses a record while others write."""
    for shot in SHOTS:
        store.put("night", ShotRecord(id=shot.id, attempts=1))
    code = (
        "from gateway.batch.store import BatchStore\n"
        "from gateway.batch.types import ShotRecord\n"
        f"store = BatchStore({store.url!r})\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for number in range(6):\n"
        "        store.put('night', ShotRecord(id=f's{number}', attempts=2))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            reader = BatchStore(store.database)
            assert all(record.attempts for _ in range(150) for record in reader.records("night"))
        finally:
            writer.kill()
