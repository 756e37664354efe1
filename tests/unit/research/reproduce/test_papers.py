"""The protocols of the five papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.evaluation.table import FIGURES
from research.evaluation.types import VARIANTS
from research.reproduce.claims import TITLE, shown
from research.reproduce.run import paper_named
from services.common.errors import InvalidRequestError
from services.common.methods import METHODS, PAPERS, method_named

PAGES = Path(__file__).parents[4] / "docs/methods/reproduce"


@pytest.mark.parametrize("name", PAPERS)
def test_every_claim_can_be_measured(name: str) -> None:
    paper = paper_named(name)
    assert paper.name == name
    claims = [each.claim for each in paper.protocols]
    assert len({claim.name for claim in claims}) == len(claims)
    for each in paper.protocols:
        assert each.dubs or each.measure is not None
        assert each.claim.checks
        assert {dub.row for dub in each.dubs} <= set(each.claim.rows)
    assert paper.left_out


@pytest.mark.parametrize("name", PAPERS)
def test_page_has_every_claim(name: str) -> None:
    """The page in the documents has the claims, the paper's numbers and what is left out."""
    paper, lines = paper_named(name), (PAGES / f"{name}.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"{TITLE} `{name}`"
    for each in paper.protocols:
        claim = each.claim
        assert f"## {claim.name} ({claim.source})" in lines
        for row, numbers in claim.paper.items():
            for figure in claim.figures:
                if figure.name in numbers:
                    begin = f"| {row} | {figure.label} | {shown(numbers[figure.name])} | "
                    assert any(line.startswith(begin) for line in lines), begin
    assert [line for line in lines if line.startswith("* ")][-len(paper.left_out) :] == [
        f"* {left.part}: {left.reason}" for left in paper.left_out
    ]


@pytest.mark.parametrize("name", PAPERS)
def test_dubs_name_known_evaluations(name: str) -> None:
    for each in paper_named(name).protocols:
        checked = {check.figure for check in each.claim.checks}
        for dub in each.dubs:
            assert dub.variant in VARIANTS
            method_named(dub.of.method)
            assert {dub.names.get(figure, figure) for figure in checked} <= set(FIGURES)


@pytest.mark.parametrize("name", PAPERS)
def test_rows_of_dubs_have_names(name: str) -> None:
    """Different configurations have different rows in the table of all figures."""
    rows = {dub.table_row for each in paper_named(name).protocols for dub in each.dubs}
    assert len({row.label for row in rows}) == len(rows)


def test_every_method_of_papers_listed() -> None:
    assert set(PAPERS) == set(METHODS) - {"dubstage", "portrait"}


def test_unknown_paper_refused() -> None:
    with pytest.raises(InvalidRequestError, match="'magic'; there are ugc"):
        paper_named("magic")
