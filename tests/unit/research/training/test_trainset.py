"""Training sets on disk, and values that are made once and kept within bounded memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from research.training.trainset import LAG_ZERO, BoundedCache, ClipRow, TrainSet, write_manifest
from services.common.errors import InvalidRequestError


def test_the_least_recently_used_values_are_dropped() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key * 4

    cache = BoundedCache(make, len, max_bytes=8)
    assert [cache["a"], cache["b"], cache["a"], cache["c"], cache["a"], cache["b"]] == [
        "aaaa",
        "bbbb",
        "aaaa",
        "cccc",
        "aaaa",
        "bbbb",
    ]
    assert made == ["a", "b", "c", "b"]


def test_oversized_value_not_cached() -> None:
    """A value that is too large is given and forgotten with the next."""
    made: list[int] = []

    def make(key: int) -> bytes:
        made.append(key)
        return bytes(key)

    cache = BoundedCache(make, len, max_bytes=10)
    for key in (100, 100, 2, 100):
        assert len(cache[key]) == key
    assert made == [100, 2, 100]


def test_several_threads_get_the_right_values() -> None:
    def make(key: int) -> int:
        time.sleep(0.001)
        return key * key

    cache = BoundedCache(make, lambda _: 1, max_bytes=3)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(cache.__getitem__, [n % 7 for n in range(80)])) == [(n % 7) ** 2 for n in range(80)]


def test_lags_of_an_earlier_zero_are_refused(tmp_path: Path) -> None:
    """A set whose lags were measured from an earlier zero names the command that measures the lags anew."""
    row = ClipRow(
        name="a", shard="00000", file="a.mp4", sha256="0" * 64, source="clips", speaker="ada", split="train", has_face=True,
        lag_frames=1, lag_confidence=0.7,
    )  # fmt: skip
    write_manifest(tmp_path, [row])
    with pytest.raises(InvalidRequestError, match=r"1 clips \(a, \.\.\.\).*`dubstage trainset`"):
        TrainSet(tmp_path)
    assert TrainSet(tmp_path, any_zero=True).rows == (row,)
    write_manifest(tmp_path, [replace(row, lag_zero=LAG_ZERO)])
    assert TrainSet(tmp_path).rows[0].lag_frames == 1
