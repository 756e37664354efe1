"""Risk of a shot: known scales, one figure for the order, and reasons in words."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.batch.risk import FAILED, MISSED, UNDUBBED, parts_of, reasons_of, risk_of
from gateway.batch.types import ShotAppearance, ShotFinish, ShotMotion, ShotRecord, ShotState
from gateway.reports.scales import SCALES

GOOD = ShotRecord(
    id="s",
    state=ShotState.DONE,
    frames=100,
    frames_dubbed=100,
    r_opening=0.95,
    motion=ShotMotion(opening_spread=0.9, width_spread=0.9, fastest_step=0.95),
    appearance=ShotAppearance(tint_alarms=0.0, popping=0.9, face_distance=0.05),
    finish=ShotFinish(lateness_ms=0.0, sync_confidence=0.7, still_share=0.0, seam=0.0015, flicker=0.003),
)


def changed(**more: Any) -> ShotRecord:
    return GOOD.model_copy(update=more)


def finish(**more: Any) -> ShotRecord:
    assert GOOD.finish is not None
    return changed(finish=GOOD.finish.model_copy(update=more))


@pytest.mark.parametrize("name", SCALES)
def test_parts_grow_with_the_distance(name: str) -> None:
    """A part is 0 at the best value, .1 on the edge and 1 at twice the distance, and never falls on the way."""
    scale = SCALES[name]
    for edge in (scale.low, scale.high):
        if edge is None:
            continue
        parts = [scale.part(scale.best + share * (edge - scale.best)) for share in (0, 0.5, 1, 1.5, 2, 9)]
        assert (parts[0], round(parts[2], 9), parts[4:]) == (0, 0.1, pytest.approx([1, 1]))
        assert parts == sorted(parts)


def test_good_shots_have_little_risk() -> None:
    assert risk_of(GOOD) < 0.2
    assert risk_of(ShotRecord(id="s", state=ShotState.DONE, frames=10, frames_dubbed=10)) == 0.0, "nothing is known"


@pytest.mark.parametrize(
    "bad",
    [
        finish(lateness_ms=-200.0),
        finish(sync_confidence=0.15),
        finish(still_share=0.5),
        finish(seam=0.01),
        finish(flicker=0.1),
        changed(frames_dubbed=40),
        changed(r_opening=0.1),
        changed(appearance=ShotAppearance(popping=2.0)),
        changed(motion=ShotMotion(vowel_shift_ms=200.0)),
    ],
)
def test_faults_raise_the_risk(bad: ShotRecord) -> None:
    assert risk_of(bad) > risk_of(GOOD) + 0.4
    assert next(iter(reasons_of(bad))) not in set(reasons_of(GOOD))


def test_states_come_before_figures() -> None:
    failed = changed(state=ShotState.FAILED, error="no face")
    assert (risk_of(failed), list(reasons_of(failed))) == (FAILED, ["no face"])
    assert FAILED > risk_of(changed(state=ShotState.UNDUBBED)) == UNDUBBED > risk_of(finish(lateness_ms=-200.0))
    for state in (ShotState.WAITING, ShotState.RUNNING, ShotState.CANCELLED):
        assert risk_of(changed(state=state)) == 0.0


def test_missed_thresholds_and_warnings_count() -> None:
    marked = changed(look=("the correlation is 0.2",), warnings=tuple(f"warning {number}" for number in range(9)))
    assert parts_of(marked)["the correlation is 0.2"] == MISSED
    assert risk_of(GOOD) < risk_of(changed(warnings=("cut",))) < risk_of(marked) < 1.0
    assert next(iter(reasons_of(marked))) == "the correlation is 0.2"
