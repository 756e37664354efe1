"""Pairs of sequences that the temporal warp learns from, drawn from clips of a drawn person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from research.texture.pairs import BANK_FRAMES, CHAIN, PairConfig, PairSource, plan_banks, read_bank
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from tests.refusals import raised
from tests.unit.texture.train_sets import drawn_set

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


STILL = PairConfig(worse_share=0.0, scale_spread=0.0, wobble_px=0.0, jitter_px=0.0)


@pytest.fixture(scope="module")
def data(person: DrawnPerson, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    clips = {"a": ("drawn", "train", 90), "b": ("drawn", "train", 90), "c": ("other", "train", 50), "d": ("new", "val", 50)}
    return drawn_set(tmp_path_factory.mktemp("set"), person, clips)


def test_pairs_from_elsewhere_in_footage(data: TrainSet) -> None:
    """Pairs are real sequences from elsewhere in the footage."""
    rows = [row for row in data.of("train", face=True) if row.speaker == "drawn"]
    pairs = PairSource(data, rows, STILL, seed=1).pairs(10, 0, 0)
    assert pairs.target.shape == pairs.source.shape == (10, CHAIN, 86, 2)
    bank = read_bank(data, plan_banks(rows, least_frames=1)["drawn"][0])
    for target, source in zip(pairs.target, pairs.source, strict=True):
        starts = [int(np.abs(bank.control_points - sequence[0]).sum(axis=(1, 2)).argmin()) for sequence in (target, source)]
        for start, sequence in zip(starts, (target, source), strict=True):
            np.testing.assert_allclose(bank.control_points[start : start + CHAIN], sequence, atol=1e-2)
        assert abs(bank.frame_index[starts[0]] - bank.frame_index[starts[1]]) >= 40


def test_a_batch_follows_from_its_place_alone(data: TrainSet) -> None:
    def source() -> PairSource:
        return PairSource(data, data.of("train", face=True), PairConfig(pool_banks=2, pool_steps=3), seed=5)

    one, other = source(), source()
    for step in (4, 0):
        other.pairs(2, step, 1)
    first, again = one.pairs(3, 7, 1), other.pairs(3, 7, 1)
    np.testing.assert_array_equal(first.target, again.target)
    np.testing.assert_array_equal(first.source, again.source)
    assert not np.array_equal(first.target, one.pairs(3, 7, 0).target)


def test_long_divided_short_share(data: TrainSet) -> None:
    """Long clips are divided and short clips share a bank."""
    row = data.rows[0]
    clips = [replace(row, name=name, frames=frames, usable_frames=frames) for name, frames in (("a", 75), ("b", 75), ("c", 1000))]
    banks = plan_banks(clips, least_frames=18)["drawn"]
    assert [[part.row.name for part in bank.parts] for bank in banks] == [["a", "b"], ["c"], ["c"], ["c"]]
    assert all(sum(part.end - part.begin for part in bank.parts) <= BANK_FRAMES for bank in banks)
    assert plan_banks([replace(row, weight=0.0)], least_frames=1) == {}


def test_footage_that_is_too_short_is_named(person: DrawnPerson, tmp_path: Path) -> None:
    data = drawn_set(tmp_path, person, {"a": ("drawn", "train", 20)})
    with raised(InvalidRequestError, match="two seconds or more", field="data"):
        PairSource(data, data.of("train"), PairConfig(), seed=0)
