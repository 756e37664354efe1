"""Preparations of a finished set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gateway.trainset.build import BuildOrder
from gateway.trainset.preparing import prepare
from services.common.errors import InvalidRequest, StorageFull
from services.common.store.tensor_bytes import encode_arrays
from services.training.trainset.layout import part_path
from services.training.trainset.manifest import ClipRow, write_manifest
from services.training.trainset.reader import TrainSet
from tests.file_limit import files_of_at_most

ROWS = [ClipRow(name=name, shard="00000", file=name, sha256="", source="x", speaker=name, split="train") for name in "ab"]


@dataclass(frozen=True)
class Step:
    name: str
    prepare: Callable[[Path, Path, int, Callable[[int, int], None]], Mapping[str, str]]


@pytest.fixture
def order(tmp_path: Path) -> BuildOrder:
    (tmp_path / "set" / "shards" / "00000").mkdir(parents=True)
    write_manifest(tmp_path / "set", ROWS)
    return BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set", processes=3)


def label(folder: Path, clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    assert (clips.name, processes) == ("clips", 3)
    path = part_path(folder, "00000", "a", "phones")
    path.write_bytes(encode_arrays({"labels": np.zeros(4, np.uint8)}, {"origin": "recognised"}))
    progress(2, 2)
    return {"b": "no speech"}


def fail(*_: object) -> Mapping[str, str]:
    raise InvalidRequest("a network is missing", field="data")


def test_preparations_show_progress_and_note_phones_and_reasons(order: BuildOrder) -> None:
    shown: list[tuple[str, int, int]] = []
    said: list[str] = []
    rows = prepare(order, [Step("phones", label)], lambda *each: shown.append(each), said.append)
    assert [row.phones for row in rows] == ["recognised", ""]
    assert list(TrainSet(order.output).rows) == rows
    assert shown == [("phones", 2, 2)]
    assert said == ["phones: b: no speech"]
    missing = [json.loads(line) for line in (order.output / "incomplete.jsonl").read_text().splitlines()]
    assert missing == [{"clip": "b", "step": "phones", "reason": "no speech"}]


def test_a_preparation_that_fails_does_not_keep_the_others_from_their_work(order: BuildOrder) -> None:
    with pytest.raises(InvalidRequest, match="a network is missing"):
        prepare(order, [Step("identities", fail), Step("phones", label)], lambda *_: None, lambda _: None)
    assert [row.phones for row in TrainSet(order.output).rows] == ["recognised", ""]


def test_a_full_disk_ends_the_preparations(order: BuildOrder) -> None:
    with files_of_at_most(40), pytest.raises(StorageFull, match=r"no space left in .*/set: free some, and run the same command"):
        prepare(order, [Step("phones", label)], lambda *_: None, lambda _: None)
