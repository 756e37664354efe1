"""Tests of `dubstage evaluate`: readable tables, and options that are refused before any computation."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.app import run
from research.cli.evaluate import score_lines
from research.evaluation.types import METRICS, VARIANTS
from tests.refusals import error_line

SCORES = {variant: dict.fromkeys(METRICS, place + 0.5) for place, variant in enumerate(VARIANTS)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--all-methods"], "--table FILE.md"),
        (["--weights", "one_frame=."], "--table FILE.md"),
        (["--enrol-seconds", "5,10"], "--table FILE.md"),
        (["--enrol-seconds", "5,ten", "--table", "{}/t.md"], "numbers of seconds, such as 5,10,30, not '5,ten'"),
        (["--all-methods", "--ablation", "ugc", "--table", "{}/t.md"], "not both"),
        (["--table", "{}/t.md", "--report", "{}/report"], "not both"),
        (["--ablation", "nobody", "--table", "{}/t.md"], "no ablation of 'nobody'"),
        (["--ablation", "hetero", "--table", "{}/t.md", "--weights", "mine={}"], "no row of this table has them"),
        (["--ablation", "hetero", "--table", "{}/t.md", "--weights", "mine"], "NAME=PATH"),
        (["--all-methods", "--table", "{}/t.txt"], "does not end with .md"),
    ],
)
def test_options_that_contradict_each_other_are_named(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", "video.mp4", *(option.format(tmp_path) for option in options)]) == 10
    assert said in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_splits_without_a_catalogue_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(tmp_path), "--splits", "dev"]) == 10
    assert "catalogue.csv" in capsys.readouterr().err


def test_foreign_table_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ready made table of another kind is not replaced."""
    (tmp_path / "notes.md").write_text("mine")
    assert run(["evaluate", "video.mp4", "--table", str(tmp_path / "notes.md")]) == 10
    assert "no table wrote it" in capsys.readouterr().err
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_80_columns_show_every_name_and_figure_whole() -> None:
    lines = list(score_lines(METRICS, SCORES, width=40))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    for name in (*METRICS, *VARIANTS):
        assert name in text
    for place in range(len(VARIANTS)):
        assert text.count(f" {place + 0.5:.3f}") == len(METRICS)


def test_a_wide_terminal_gets_one_table() -> None:
    lines = list(score_lines(METRICS, SCORES, width=200))
    assert len(lines) == 1 + len(METRICS)
    assert lines[0].split() == list(VARIANTS)


def test_figures_stand_under_their_variant() -> None:
    heads, row = list(score_lines(("closure",), {"full": {"closure": 0.5}, "tps": {"closure": float("nan")}}))
    assert heads.index("full") + len("full") == row.index("0.500") + len("0.500")
    assert row.endswith("nan")
