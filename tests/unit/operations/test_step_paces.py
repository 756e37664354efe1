"""Paces of steps on this machine: later operations are estimated by the times of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.operations.progress import StepCost, WholeProgress
from gateway.operations.step_paces import StepPaces

STEPS = (StepCost("track", frame_ms=10), StepCost("enrol renderer", fixed_s=50), StepCost("dub", frame_ms=40))


class Machine:
    """A machine that takes `paces` times the seconds of STEPS for 1000 frames."""

    def __init__(self, **paces: float) -> None:
        self._paces = paces
        self.now = 0.0

    def work(self, known: Mapping[str, float] | None = None, floor: float = 0.0) -> WholeProgress:
        progress = WholeProgress(STEPS, paces=known or {}, floor=floor, clock=lambda: self.now)
        for step in STEPS:
            for part in range(11):
                progress.report(step.name, 100 * part, 1000)
                self.now += self._paces.get(step.name.split()[0], 1.0) * step.seconds(1000, 0.5) / 10 * (part < 10)
        return progress


def paces(folder: Path, method: str = "dubstage") -> dict[str, float]:
    return dict(StepPaces(folder, method).of(STEPS))


def test_first_operation_has_no_paces(tmp_path: Path) -> None:
    assert paces(tmp_path) == {}


def test_next_operation_uses_measured_times(tmp_path: Path) -> None:
    StepPaces(tmp_path, "dubstage").add(Machine(enrol=2.0, dub=1.5).work())
    assert paces(tmp_path) == pytest.approx({"track": 1.0, "enrol renderer": 2.0, "dub": 1.5}, rel=0.01)


def test_paces_do_not_add_up(tmp_path: Path) -> None:
    """The pace of an operation whose costs were corrected is the pace against the measured costs."""
    for _ in range(3):
        StepPaces(tmp_path, "dubstage").add(Machine(dub=3.0).work(paces(tmp_path)))
    assert paces(tmp_path)["dub"] == pytest.approx(3.0, rel=0.01)


def test_new_method_learns_from_others(tmp_path: Path) -> None:
    """Until a method was used on the machine, the paces of other methods count."""
    StepPaces(tmp_path, "dubstage").add(Machine(dub=2.0).work())
    assert paces(tmp_path, "hetero")["dub"] == pytest.approx(2.0, rel=0.01)
    StepPaces(tmp_path, "hetero").add(Machine(dub=5.0).work())
    assert paces(tmp_path, "hetero")["dub"] == pytest.approx(5.0, rel=0.01)
    assert paces(tmp_path, "dubstage")["dub"] == pytest.approx(2.0, rel=0.01)


def test_one_slow_dub_changes_little(tmp_path: Path) -> None:
    for pace in (1.0, 1.1, 9.0, 1.0):
        StepPaces(tmp_path, "dubstage").add(Machine(dub=pace).work())
    assert paces(tmp_path)["dub"] < 1.2


def test_reused_step_is_no_pace(tmp_path: Path) -> None:
    """A step whose result was there already takes no time, and an operation that another process began is not measured."""
    StepPaces(tmp_path, "dubstage").add(Machine(enrol=0.01).work())
    assert paces(tmp_path)["enrol renderer"] == pytest.approx(1.0, rel=0.01)
    StepPaces(tmp_path, "dubstage").add(Machine(dub=8.0).work(floor=0.3))
    assert paces(tmp_path)["dub"] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("text", ["", "{", '{"layout": 1, "note": {"dub": {"dubstage": ["fast"]}}}'])
def test_damaged_file_is_no_correction(tmp_path: Path, text: str) -> None:
    (tmp_path / "steps.json").write_text(text, encoding="utf-8")
    assert paces(tmp_path) == {}
    StepPaces(tmp_path, "dubstage").add(Machine(dub=2.0).work())
    assert paces(tmp_path)["dub"] == pytest.approx(2.0, rel=0.01)
