"""Values that are made once and kept within bounded memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from research.training.trainset import BoundedCache


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
