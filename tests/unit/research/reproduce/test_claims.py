"""Claims of a paper: checks, verdicts, and the page with the paper's numbers beside ours."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from research.reproduce.claims import Claim, Comparable, Figure, LeftOut, Level, Numbers, Order, Outcome, Page, Verdict, shown

ERROR = Figure("error", "Ef, px", False, "partly", "other people")
PSNR = Figure("psnr", "PSNR, dB", True, "yes", "same clips")
CLAIM = Claim(
    name="warp",
    source="Table IV",
    text="The network fits better.",
    rows=("spline", "network"),
    figures=(ERROR, PSNR),
    paper={"spline": {"error": 1.12}, "network": {"error": 0.92, "psnr": 30.0}},
    checks=(Order("error", "network", "spline"), Level("psnr", "network")),
)
GOOD: Numbers = {"spline": {"error": 2.0}, "network": {"error": 1.5, "psnr": 31.0}}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (GOOD, "reproduced"),
        ({"spline": {"error": 2.0}, "network": {"error": 1.5, "psnr": 20.0}}, "partly"),
        ({"spline": {"error": 2.0}, "network": {"error": 1.5}}, "partly"),
        ({"spline": {"error": 1.5}, "network": {"error": 1.5, "psnr": 20.0}}, "not reproduced"),
        ({"spline": {"error": 1.5}}, "open"),
        ({}, "open"),
    ],
)
def test_checks_make_the_verdict(ours: Numbers, verdict: Verdict) -> None:
    assert Outcome(CLAIM, ours).verdict == verdict


@pytest.mark.parametrize(
    ("figure", "ours", "holds"), [(PSNR, 28.5, True), (PSNR, 28.4, False), (ERROR, 31.5, True), (ERROR, 31.6, False)]
)
def test_level_allows_five_percent(figure: Figure, ours: float, holds: bool) -> None:
    assert figure.reaches(ours, 30.0) is holds


@pytest.mark.parametrize(("comparable", "holds"), [("yes", True), ("partly", True), ("no", None)])
def test_no_level_without_comparison(comparable: Comparable, holds: bool | None) -> None:
    claim = replace(CLAIM, figures=(ERROR, replace(PSNR, comparable=comparable)))
    assert [check.holds for check in Outcome(claim, GOOD).checks] == [True, holds]


@pytest.mark.parametrize(
    "checks", [(Order("error", "network", "nobody"),), (Order("speed", "network", "spline"),), (Level("psnr", "spline"),)]
)
def test_unknown_names_refused(checks: tuple[Order | Level, ...]) -> None:
    with pytest.raises(ValueError, match="claim 'warp'"):
        replace(CLAIM, checks=checks)


def test_unknown_numbers_of_paper_refused() -> None:
    with pytest.raises(ValueError, match="the paper's numbers"):
        replace(CLAIM, paper={**CLAIM.paper, "nobody": {"error": 1.0}})


@pytest.mark.parametrize(
    ("number", "text"),
    [(31.19, "31.19"), (0.0136, "0.0136"), (0.95, "0.95"), (1500.0, "1500"), (0.00006, "0.00006"), (0.0, "0"), (float("nan"), "-")],
)
def test_numbers_have_four_digits(number: float, text: str) -> None:
    assert shown(number) == text


def test_page_shows_both_numbers() -> None:
    outcome = Outcome(CLAIM, GOOD, "two clips", ("spline, a.mp4: no face",), quick=True)
    page = Page(paper="ugc", title="Song", outcomes=[outcome], left_out=[LeftOut("FID", "needs a network")])
    lines = page.markdown().splitlines()
    assert lines[0] == "# Reproduction of `ugc`"
    assert "| warp: The network fits better. | Table IV | **reproduced** |" in lines
    assert "    dubstage reproduce ugc CLIPS --data SET --claim warp --quick --output FOLDER" in lines
    assert "| network | Ef, px | 0.92 | 1.5 | partly: other people |" in lines
    assert "| spline | PSNR, dB | - | - | yes: same clips |" not in lines
    assert "* holds: Ef, px: network (1.5) is better than spline (2)" in lines
    assert "* holds: PSNR, dB: network (31) reaches the paper's 30" in lines
    assert "* not measured: spline, a.mp4: no face" in lines
    assert lines[-2:] == ["", "* FID: needs a network"]


def test_page_names_unmeasured_claims() -> None:
    page = Page(paper="ugc", title="Song", outcomes=[Outcome(CLAIM)], left_out=[])
    text = page.markdown()
    assert "Not measured yet." in text
    assert "could not be checked: Ef, px: network (-) is better than spline (-)" in text
    document = page.document()["claims"][0]
    assert (document["verdict"], document["ours"], document["measured_on"]) == ("open", {}, "")
    json.dumps(page.document(), allow_nan=False)
