"""Tables of an evaluation are readable at any width of the terminal."""

from __future__ import annotations

from gateway.cli.score_tables import score_lines
from gateway.evaluation.types import METRICS, VARIANTS

SCORES = {variant: dict.fromkeys(METRICS, place + 0.5) for place, variant in enumerate(VARIANTS)}


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
