from __future__ import annotations

import fcntl
import secrets
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from services.common.errors import StorageFullError
from services.render.backends import triton_control
from services.render.backends.triton_control import PREFIX, SharedRegion, aligned, is_present, remove_abandoned

HOLD = """
import sys
from services.render.backends.triton_control import SharedRegion
print(SharedRegion(64).name, flush=True)
sys.stdin.read()
"""


def test_what_is_written_is_read_as_a_copy() -> None:
    region = SharedRegion(4096)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    region.write(values, 64)
    read = region.read((3, 4), np.float32, 64)
    region.write(np.zeros_like(values), 64)
    assert np.array_equal(read, values)
    assert is_present(region.name)
    region.close()
    assert not is_present(region.name)


def test_arrays_begin_at_multiples_of_64() -> None:
    assert [aligned(size) for size in (1, 64, 65)] == [64, 64, 128]


def test_missing_shared_memory_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not there is said at once and leaves nothing."""
    # Other processes make and remove regions meanwhile, so this one is looked for by its name.
    name = secrets.token_hex(8)
    monkeypatch.setattr(triton_control, "secrets", SimpleNamespace(token_hex=lambda _: name))
    with pytest.raises(StorageFullError, match="no room for"):
        SharedRegion(1 << 50)
    assert not is_present(f"{PREFIX}{name}")


def test_abandoned_region_is_remade(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may look between the moment at which the file is there and that at which it is locked."""
    lock, seen = fcntl.flock, list[int]()

    def late(file: int, how: int) -> None:
        if not seen:
            seen.append(file)
            monkeypatch.undo()
            remove_abandoned()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    region = SharedRegion(64)
    assert seen
    assert is_present(region.name)
    region.close()


def test_only_dead_process_regions_removed() -> None:
    """Regions of a killed process are removed and those of a living one stay."""
    ours = SharedRegion(64)
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = other.stdout.readline().strip()
        remove_abandoned()
        assert is_present(theirs)
        other.kill()
    remove_abandoned()
    assert not is_present(theirs)
    assert is_present(ours.name)
    ours.close()
