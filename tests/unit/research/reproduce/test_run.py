"""A run: which claims are measured, what stays of an earlier run, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.settings import GatewaySettings
from research.evaluation.results import Configuration
from research.evaluation.table import FilledRow, RefusedClip
from research.reproduce.claims import Claim, Figure, LeftOut, Order
from research.reproduce.run import (
    DubRow,
    Material,
    Measured,
    PaperProtocol,
    Protocol,
    ReproductionRequest,
    dub_numbers,
    reproduce,
    selection_note,
)
from services.common.errors import InvalidRequestError
from tests.unit.texture.train_sets import drawn_set

if TYPE_CHECKING:
    from research.training.trainset import TrainSet

from tests.unit.texture.conftest import DrawnPerson


def claim(name: str) -> Claim:
    return Claim(
        name=name,
        source="Table 1",
        text="First is better.",
        rows=("first", "second"),
        figures=(Figure("error", "error", False, "no", "another unit"),),
        paper={},
        checks=(Order("error", "first", "second"),),
    )


def measured(material: Material) -> Measured:
    material.progress("clips", 1, 1)
    return Measured({"first": {"error": 1.0}, "second": {"error": 2.0 if material.quick else 0.5}}, "drawn clips")


def failing(_: Material) -> Measured:
    raise InvalidRequestError("the set has no identity", field="data")


PAPER = PaperProtocol(
    name="ugc",
    title="Song",
    splits=("val",),
    speakers="grid-",
    protocols=(
        Protocol(claim=claim("numbers"), measure=measured),
        Protocol(claim=claim("broken"), measure=failing),
        Protocol(claim=claim("dubs"), dubs=(DubRow(row="first", of=Configuration(method="ugc")),)),
    ),
    left_out=(LeftOut("FID", "needs a network"),),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return drawn_set(tmp_path_factory.mktemp("set"), DrawnPerson(), {"a": ("ann", "val", 50)})


def run(
    output: Path,
    data: TrainSet | None,
    *claims: str,
    quick: bool = False,
    clips: list[Path] | None = None,
) -> dict[str, dict[str, object]]:
    request = ReproductionRequest(
        paper=PAPER, claims=claims, clips=clips or [], splits=PAPER.splits, data=data, output=output, quick=quick
    )
    assert reproduce(GatewaySettings(), request) == output / "ugc.md"
    document = json.loads((output / "ugc.json").read_text(encoding="utf-8"))
    return {each["name"]: each for each in document["claims"]}


def test_every_claim_is_named(tmp_path: Path, data: TrainSet) -> None:
    found = run(tmp_path, data)
    assert {name: each["verdict"] for name, each in found.items()} == {
        "numbers": "not reproduced",
        "broken": "open",
        "dubs": "open",
    }
    assert found["broken"]["missing"] == ["the set has no identity"]
    assert found["dubs"]["missing"] == ["the claim is measured on dubs: give clips"]
    assert "* FID: needs a network" in (tmp_path / "ugc.md").read_text(encoding="utf-8")


def test_other_claims_keep_their_numbers(tmp_path: Path, data: TrainSet) -> None:
    run(tmp_path, data, "numbers", quick=True)
    found = run(tmp_path, data, "broken")
    assert found["numbers"]["ours"] == {"first": {"error": 1.0}, "second": {"error": 2.0}}
    assert (found["numbers"]["quick"], found["numbers"]["verdict"]) == (True, "reproduced")
    assert run(tmp_path, data, "numbers")["numbers"]["verdict"] == "not reproduced"


def test_numbers_stay_without_data(tmp_path: Path, data: TrainSet) -> None:
    run(tmp_path, data, "numbers")
    found = run(tmp_path, None, "numbers", "broken", clips=[tmp_path / "clip.mp4"])
    assert found["numbers"]["measured_on"] == "drawn clips"
    assert found["broken"]["missing"] == ["the claim is measured on a training set: give one with --data SET"]


def test_unknown_claim_refused(tmp_path: Path, data: TrainSet) -> None:
    with pytest.raises(InvalidRequestError, match="'magic'; there are numbers, broken, dubs"):
        run(tmp_path, data, "magic")


def test_nothing_to_measure_on_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="give clips"):
        run(tmp_path, None)


def test_other_file_not_replaced(tmp_path: Path, data: TrainSet) -> None:
    (tmp_path / "ugc.md").write_text("# My notes\n", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="no page"):
        run(tmp_path, data)
    assert (tmp_path / "ugc.md").read_text(encoding="utf-8") == "# My notes\n"


def test_damaged_numbers_refused(tmp_path: Path, data: TrainSet) -> None:
    (tmp_path / "ugc.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidRequestError, match="holds no numbers"):
        run(tmp_path, data)


def test_absent_clips_are_named(tmp_path: Path) -> None:
    """A catalogue without a clip of the protocol's speakers is refused."""
    with (tmp_path / "catalogue.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("file", "use", "speaker"), ("a.mp4", "val", "ann")])
    with pytest.raises(InvalidRequestError, match="of use val"):
        PAPER.clips([tmp_path], (), quick=False)


def test_quick_takes_two_clips(tmp_path: Path) -> None:
    clips = [tmp_path / name for name in "abc"]
    assert PAPER.clips(clips, (), quick=True) == [clips[0], clips[2]]
    assert PAPER.clips(clips, (), quick=False) == clips
    assert PAPER.clips([], (), quick=True) == []


def test_rows_are_means_over_common_clips() -> None:
    """A clip that one row refused is left out of every row: the rows are compared."""
    few, many = (
        DubRow(row=name, of=Configuration(method="ugc", enrol_frames=frames)) for name, frames in (("first", 100), ("second", 300))
    )
    protocol = Protocol(claim=claim("length"), dubs=(few, many))
    rows = {
        "first": FilledRow(few.table_row, {"short": {"error": 20.0}, "long": {"error": 26.0}}),
        "second": FilledRow(many.table_row, {"long": {"error": 25.0}}, (RefusedClip("short", "it has 4 s"),)),
    }
    numbers, clips, missing = dub_numbers(protocol, rows)
    assert numbers == {"first": {"error": 26.0}, "second": {"error": 25.0}}
    assert (clips, missing) == (["long"], ("second, short: it has 4 s",))
    apart = rows | {"first": FilledRow(few.table_row, {"short": {"error": 20.0}})}
    assert dub_numbers(protocol, apart)[1:] == ([], ("second, short: it has 4 s", "no clip could be evaluated in every row"))


def test_pages_name_clips_that_chose() -> None:
    assert "best step" in selection_note(("dev", "val"))
    assert selection_note(("dev", "dev_people")) == ""
