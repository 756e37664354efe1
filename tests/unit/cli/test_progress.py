"""Progress if stderr is not a terminal: plain lines, the first line at once, and further lines while a pass reports nothing."""

from __future__ import annotations

import time
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from gateway.cli.progress import StepProgress
from gateway.operations.progress import StepCost


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The one number in the list is the time."""
    seconds = [100.0]
    monkeypatch.setattr("gateway.cli.progress.time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def last_line(progress: StepProgress, capsys: pytest.CaptureFixture[str]) -> str:
    progress._shown._say()  # type: ignore[union-attr]
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("now")
def test_the_first_line_comes_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with StepProgress(line_s=3600.0) as progress:
        progress("track", 3, 12)
        progress("track", 4, 12)
        assert capsys.readouterr().err == "0:00  Follow the faces: 3 of 12\n"


def test_lines_repeat_while_a_step_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    said = ""
    with StepProgress(line_s=0.02) as progress:
        progress.begin("start")
        deadline = time.monotonic() + 30.0
        while said.count("Start the stages ...") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert said.count("Start the stages ...") >= 3


def test_a_line_has_rate_and_time_left(capsys: pytest.CaptureFixture[str], now: list[float]) -> None:
    progress = StepProgress(line_s=3600.0)
    progress.begin("start")
    progress("dub", 0, 500)
    now[0] += 10.0
    progress("dub", 125, 500)
    assert last_line(progress, capsys).endswith("Render and write the video: 125 of 500, 12.5 per second, about 0:30 left")


def test_a_continued_step_is_timed_from_its_continuation(capsys: pytest.CaptureFixture[str], now: list[float]) -> None:
    progress = StepProgress(line_s=3600.0)
    progress("measure", 400, 500)
    progress("enrol", 1, 2)
    progress("measure", 410, 500)
    now[0] += 10.0
    progress("measure", 420, 500)
    assert last_line(progress, capsys).endswith("Measure the video: 420 of 500, 1.0 per second, about 1:20 left")


@pytest.mark.usefixtures("now")
def test_a_line_has_the_share_of_all_steps(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress([StepCost("track", frame_ms=10.0), StepCost("dub", frame_ms=30.0)], line_s=3600.0)
    progress("track", 12, 12)
    progress("dub", 4, 12)
    assert last_line(progress, capsys).endswith("Render and write the video: 4 of 12; 50% of all steps")


def test_the_bar_of_a_single_part_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitting a face tells nothing between its beginning and its end."""
    monkeypatch.setattr("gateway.cli.progress.err", Console(file=StringIO(), force_terminal=True))
    progress = StepProgress()
    progress("enrol identity", 0, 1)
    (bar,) = progress._shown._progress.tasks  # type: ignore[union-attr]
    assert (bar.description, bar.total) == ("Learn the face", None)
    progress("enrol renderer", 0, 70)
    assert bar.finished


def test_the_thread_ends_with_the_progress() -> None:
    with StepProgress(line_s=0.01) as progress:
        progress("dub", 1, 2)
    assert not progress._shown._thread.is_alive()  # type: ignore[union-attr]
