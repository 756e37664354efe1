"""Readers and writers of one store at the same time, in threads and processes."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import ArtefactNotFoundError
from services.common.store.artefacts import ArtefactStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_reader_never_sees_half_a_blob(folder: Path) -> None:
    store = ArtefactStore(folder)
    data = np.random.default_rng(0).bytes(1 << 17)
    ref = store.put_bytes(data)
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            store.delete(ref)
            store.put_bytes(data)

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = 0
    try:
        end = time.monotonic() + 60
        while seen < 5 and time.monotonic() < end:
            with contextlib.suppress(ArtefactNotFoundError):
                assert store.get_bytes(ref) == data
                seen += 1
    finally:
        stop.set()
        writer.join()
    assert seen == 5
    assert len(files(folder)) == 1


def test_a_writer_that_is_killed_leaves_no_blob(folder: Path, tmp_path: Path) -> None:
    script = f"""
import os, signal
from services.common.store import artefacts
pieces = artefacts.pieces_of
def dying(stream):
    yield next(pieces(stream))
    os.kill(os.getpid(), signal.SIGKILL)
artefacts.pieces_of, digest = dying, artefacts.sha256_of
artefacts.sha256_of = lambda stream: __import__("hashlib").sha256(stream.read()).hexdigest()
artefacts.ArtefactStore({str(folder)!r}).put_file({str(tmp_path / "clip")!r})
"""
    data = bytes(3 << 20)
    (tmp_path / "clip").write_bytes(data)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], check=False, env=environment).returncode == -9
    store = ArtefactStore(folder)
    assert all(path.name.startswith(".partial-") for path in files(folder))
    assert store.get_bytes(store.put_file(tmp_path / "clip")) == data
