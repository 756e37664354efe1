"""The stopwatch, rows and tables of all benchmarks, and the list of the benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from research.bench.__main__ import commands
from research.bench.runs import Stopwatch, best_cpu_ms, document_of, read_json, rows_of, table, write_json


@dataclass(frozen=True)
class Row:
    name: str
    ms: float
    frames: int


def test_rows_become_table_and_json(tmp_path: Path) -> None:
    """A table has a column for each field, and a JSON file has all digits."""
    rows = rows_of([Row("track", 6.81234, 15000), Row("render", 0.000123, 2)])
    assert table(rows).splitlines() == [
        "| name | ms | frames |",
        "| --- | --- | --- |",
        "| track | 6.812 | 15000 |",
        "| render | 0.000123 | 2 |",
    ]
    assert table([]) == ""
    write_json(tmp_path / "out" / "bench.json", {"stages": rows})
    assert read_json(tmp_path / "out" / "bench.json") == {"stages": rows}
    write_json(tmp_path / "out" / "bench.json", document_of(rows_of(Row("blur", math.nan, 2))[0]))
    assert read_json(tmp_path / "out" / "bench.json") == {"name": "blur", "ms": None, "frames": 2}
    assert rows_of(Row("track", 1.0, 2)) == [{"name": "track", "ms": 1.0, "frames": 2}]


def test_stopwatch_adds_up_blocks() -> None:
    watch = Stopwatch()
    with watch:
        sum(range(10_000))
    first = watch.cpu_s
    with watch:
        sum(range(10_000))
    assert watch.cpu_s > first > 0.0
    calls: list[int] = []
    assert best_cpu_ms(lambda: calls.append(sum(range(1000))), runs=3) >= 0.0
    assert len(calls) == 4


@pytest.mark.parametrize("name", ["components", "concurrency", "gpu", "long", "renderer", "watermark"])
def test_help_lists_benchmarks(name: str) -> None:
    assert f"python -m research.bench.{name}\n" in commands()
