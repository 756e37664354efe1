"""Records of shots, as the tests of `dubstage batch` store them."""

from __future__ import annotations

from collections.abc import Callable

from gateway.batch.types import ShotRecord, ShotState

Printed = Callable[[], tuple[str, str]]


def done(number: int, **more: object) -> ShotRecord:
    times = {"begun_at": "2026-11-21T20:00:00.000Z", "ended_at": "2026-11-21T20:00:10.000Z", "seconds": 10.0}
    facts = {"id": f"s{number}", "state": "done", "attempts": 1, "frames": 100, "frames_dubbed": 90, "exit_code": 0}
    return ShotRecord.model_validate({**facts, **times, **more})


def failed(number: int, code: int = 10) -> ShotRecord:
    return ShotRecord(id=f"s{number}", state=ShotState.FAILED, attempts=1, exit_code=code, error="no [red]face\x1b")
