"""Costs of dubs, and their correction by earlier dubs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.dub.state.costs import PACED_FRAMES, DubWork, Pace, PaceFile, figures
from gateway.stages.timing import StageTimes
from services.common.methods import METHODS, RENDERERS

WORK = DubWork(
    method="dubstage", pixels=1280 * 720, footage_frames=250, frames=250, rendered=250, scale=1, own_timeline=False, personalized=0
)


def times(cpu_s: float, wall_s: float) -> StageTimes:
    return StageTimes((), 250, wall_s, 0.0, cpu_s)


def test_every_method_has_a_cost() -> None:
    assert {spec.name for spec in RENDERERS.values()} == set(figures().render_ms)
    assert all(replace(WORK, method=name).processor_s > 0 for name in METHODS)


def test_method_without_figure_costs_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that somebody added can be dubbed before its cost was measured."""
    added = replace(RENDERERS["ugc"], name="added")
    monkeypatch.setitem(METHODS, "added", replace(METHODS["dubstage"], name="added", renderer=added))
    assert replace(WORK, method="added").processor_s == max(replace(WORK, method=name).processor_s for name in METHODS)


def test_more_work_costs_more() -> None:
    larger = (
        replace(WORK, pixels=1920 * 1080),
        replace(WORK, frames=500),
        replace(WORK, footage_frames=500),
        replace(WORK, scale=3),
        replace(WORK, own_timeline=True),
        replace(WORK, personalized=1),
    )
    for other in larger:
        assert other.processor_s > WORK.processor_s
        assert other.wall_s > WORK.wall_s
    assert replace(WORK, rendered=0).processor_s < WORK.processor_s
    assert replace(WORK, scale=0).processor_s < replace(WORK, scale=3).processor_s
    assert replace(WORK, personalized=1).memory_bytes > WORK.memory_bytes


def test_further_pixels_of_a_frame_cost_less() -> None:
    one, two, eight = (replace(WORK, pixels=megapixels * 1_000_000) for megapixels in (1, 2, 8))
    assert 0 < eight.processor_s - two.processor_s < 6 * (two.processor_s - one.processor_s) * 1.001
    assert two.processor_s - one.processor_s < one.processor_s - replace(WORK, pixels=0).processor_s
    assert two.memory_bytes - one.memory_bytes < one.memory_bytes - replace(WORK, pixels=0).memory_bytes


def test_last_dubs_correct(tmp_path: Path) -> None:
    """The median of the last twenty dubs counts; a dub behind servers has no processor time of its own."""
    file = PaceFile(tmp_path)
    assert file.read() == Pace(1.0, 1.0, 0)
    for factor in (9.0, *[2.0] * 12, *[3.0] * 8):
        file.add(WORK, times(factor * WORK.processor_s, 2 * factor * WORK.wall_s), whole_process=True)
    pace = file.read()
    assert (pace.processor, pace.wall, pace.num_dubs) == (pytest.approx(2.0), pytest.approx(4.0), 20)
    file.add(WORK, times(0.0, WORK.wall_s), whole_process=False)
    assert file.read().processor == pytest.approx(2.0)


def test_short_dubs_do_not_count(tmp_path: Path) -> None:
    PaceFile(tmp_path).add(replace(WORK, rendered=PACED_FRAMES - 1), times(50.0, 50.0), whole_process=True)
    assert PaceFile(tmp_path).read().num_dubs == 0


def test_damaged_file_is_no_correction(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text("{")
    assert PaceFile(tmp_path).read() == Pace()
    PaceFile(tmp_path).add(WORK, times(2 * WORK.processor_s, WORK.wall_s), whole_process=True)
    assert PaceFile(tmp_path).read().num_dubs == 1
