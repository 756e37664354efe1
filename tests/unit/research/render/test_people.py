from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.render.people import People, PeopleSettings, frame_spans, person_clips, person_shares, read_bank
from research.training.trainset import ClipRow, TrainSet, part_path
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from tests.refusals import raised
from tests.unit.research.render.tiny_training import SHARP, SOFT, add_clip, people_of

ROW = ClipRow(
    name="a", shard="00000", file="a.mp4", sha256="", source="s", speaker="anna", split="train", has_face=True, usable_frames=75
)


def rows(count: int, **fields: object) -> list[ClipRow]:
    return [replace(ROW, name=f"clip-{number:03d}", **fields) for number in range(count)]


def test_sharp_and_soft_apart() -> None:
    """Sharp and soft footage of a person stand apart."""
    clips = [replace(ROW, name="b", face_px=SOFT), replace(ROW, name="a", face_px=SHARP), replace(ROW, speaker="ben")]
    assert [(person.name, person.sharp) for person in person_clips(clips)] == [("anna", False), ("anna", True), ("ben", False)]
    (anna, _) = person_clips(clips, apart=False)
    assert [row.name for row in anna.rows] == ["a", "b"]


def test_short_or_weightless_clips_out() -> None:
    """Clips that are too short or of no weight are left out."""
    with raised(InvalidRequestError, match="at least 30 frames", field="data"):
        person_clips([replace(ROW, usable_frames=29), replace(ROW, weight=0.0)])


def test_shares_by_sharpness_and_root() -> None:
    """Sharp footage gets its share and the rest is shared by the root of the frames."""
    people = person_clips([
        *rows(1, speaker="anna", face_px=SHARP),
        *rows(1, speaker="ben"),
        *rows(4, speaker="cleo"),
        *rows(1, speaker="dora", weight=4.0),
    ])  # fmt: skip
    shares = person_shares(people, PeopleSettings(sharp_share=0.5))
    assert shares.tolist() == pytest.approx([0.5, 0.1, 0.2, 0.2])
    most = person_shares(people, PeopleSettings(sharp_share=0.5, max_frames=75))
    assert most.tolist() == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6]), "no person counts more than the largest number of frames"


def test_few_clips_held_whole() -> None:
    """A person with few clips is in memory whole."""
    (anna,) = person_clips(rows(3))
    parts = frame_spans(anna, PeopleSettings(), np.random.default_rng(0))
    assert [(part.row.name, part.first, part.last) for part in parts] == [(f"clip-{number:03d}", 0, 75) for number in range(3)]


def test_many_clips_held_in_part() -> None:
    """Some parts of a person with many or long clips are in memory."""
    (anna,) = person_clips(rows(40))
    settings = PeopleSettings(max_clips=5, max_frames=200)
    one, other = (frame_spans(anna, settings, np.random.default_rng(seed)) for seed in (1, 2))
    assert len(one) == 5
    assert all(part.last - part.first == 40 for part in one)
    assert one != other


def test_pool_follows_seed_and_step(bank: MouthBank, tmp_path: Path) -> None:
    """The people in memory follow from seed and step."""
    for number in range(6):
        add_clip(tmp_path, bank, f"clip-{number}", speaker=f"person-{number}")
    data, settings = TrainSet(tmp_path), PeopleSettings(pool_people=2, pool_steps=10)
    people, again = people_of(data, settings), people_of(data, settings)
    pools = [people.pool(step) for step in range(0, 100, 10)]
    assert pools == [again.pool(step + 9) for step in range(0, 100, 10)]
    assert len(set(pools)) > 3
    assert all(pool is not None and len(pool) == 2 for pool in pools)
    rng = np.random.default_rng(0)
    assert {people.draw(rng, 25).number for _ in range(20)} <= set(pools[2] or ())
    assert people_of(data).pool(0) is None, "all six have room"


def test_people_drawn_by_share() -> None:
    """Over many pools, each person is drawn by its share."""
    people = person_clips([*rows(1, speaker="anna", face_px=SHARP), *(replace(ROW, speaker=f"p{n}") for n in range(4))])
    made = People(TrainSet.__new__(TrainSet), people, PeopleSettings(pool_people=2, pool_steps=1, sharp_share=0.6), seed=1)
    drawn = Counter(number for step in range(2000) for number in made.pool(step) or ())
    assert drawn[0] / drawn.total() == pytest.approx(0.6, abs=0.04)


def test_bank_windows_avoid_cuts(bank: MouthBank, tmp_path: Path) -> None:
    """Parts of clips make a bank without windows across cuts."""
    for name in ("one", "two"):
        add_clip(tmp_path, bank, name, speaker="anna")
    data = TrainSet(tmp_path)
    (anna,) = person_clips(data.rows)
    parts = frame_spans(anna, PeopleSettings(max_frames=80), np.random.default_rng(4))
    made = read_bank(data, parts)
    assert made.num_frames == 80
    first = parts[0].first
    assert np.array_equal(made.boxes[:40], bank.boxes[first : first + 40])
    assert np.diff(made.frame_index).tolist() == [1] * 39 + [100_000 - 39] + [1] * 39


def test_missing_file_and_wrong_manifest(bank: MouthBank, tmp_path: Path) -> None:
    """A missing file and a wrong manifest are named."""
    row = add_clip(tmp_path, bank, "one", speaker="anna")
    data = TrainSet(tmp_path)
    parts = frame_spans(person_clips([replace(row, usable_frames=60)])[0], PeopleSettings(), np.random.default_rng(0))
    with pytest.raises(InvalidRequestError, match="clip one has fewer"):
        read_bank(data, parts)
    part_path(tmp_path, row.shard, row.name, "track").unlink()
    with pytest.raises(InvalidRequestError, match=r"one\.track\.safetensors"):
        people_of(data).person(0, 0)
