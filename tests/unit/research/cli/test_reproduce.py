"""`dubstage reproduce`: the page of a paper from a tiny training set, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.app import run
from tests.refusals import error_line
from tests.unit.texture.conftest import DrawnPerson
from tests.unit.texture.train_sets import drawn_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_set(tmp_path_factory.mktemp("set"), DrawnPerson(), {"b": ("bob", "val", 90)}).folder


def test_page_of_one_claim(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", "ugc", "--data", str(data), "--claim", "warp", "--quick", "--output", str(tmp_path)]) == 0
    page = tmp_path / "ugc.md"
    assert capsys.readouterr().out.split() == [str(page)]
    text = page.read_text(encoding="utf-8")
    assert "| temporal warp | Ef, px | 0.92 | " in text
    assert "Measured on: 16 pairs of sequences of held-out clips of 1 people (bob); " in text
    assert "Not measured yet." in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["magic"], "there is no paper 'magic'; there are ugc"),
        (["ugc"], "give clips, or a training set with --data SET, or both"),
        (["ugc", "missing.mp4", "--claim", "cost"], "missing.mp4"),
        (["ugc", "--data", "missing"], "missing is not a training set"),
    ],
)
def test_wrong_requests_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert run(["reproduce", *arguments, "--output", str(tmp_path / "out")]) == 10
    assert says in error_line(capsys)
    assert not (tmp_path / "out").exists()
