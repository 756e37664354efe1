"""How long the client rides over a gateway that is away, and what it never asks for twice."""

from __future__ import annotations

import time

import pytest

from dubstage.client.errors import DubstageCallError
from dubstage.client.gateway import _Outage


def away(**fields: object) -> DubstageCallError:
    return DubstageCallError("away", **{"code": "UNAVAILABLE", "retryable": True, **fields})


class Creation:
    """Fails with each of `errors` in turn, then gives an operation's name."""

    def __init__(self, *errors: DubstageCallError) -> None:
        self._errors = list(errors)
        self.attempts = 0

    def __call__(self) -> str:
        self.attempts += 1
        if self._errors:
            raise self._errors.pop(0)
        return "operations/1"


@pytest.mark.parametrize("error", [away(reason="MODEL_NOT_READY"), away(reason="BACKEND_UNAVAILABLE"), away(unsent=True)])
def test_work_that_cannot_have_begun_is_asked_for_again(error: DubstageCallError) -> None:
    create = Creation(error, error)
    assert _Outage(30.0, None).begun(create) == "operations/1"
    assert create.attempts == 3


@pytest.mark.parametrize(
    "error",
    [away(), away(code="DEADLINE_EXCEEDED"), away(code="RESOURCE_EXHAUSTED", reason="OVERLOADED"), away(code="CANCELLED")],
)
def test_work_that_may_have_begun_or_was_refused_is_not_asked_for_again(error: DubstageCallError) -> None:
    create = Creation(error)
    with pytest.raises(DubstageCallError):
        _Outage(30.0, None).begun(create)
    assert create.attempts == 1


def test_patience_ends_with_the_outages_longest_time() -> None:
    outage = _Outage(0.3, None)
    begin = time.monotonic()
    with pytest.raises(DubstageCallError):
        outage.begun(Creation(*[away(unsent=True)] * 1000))
    assert time.monotonic() - begin < 1


def test_patience_ends_with_the_callers_time() -> None:
    begin = time.monotonic()
    with pytest.raises(DubstageCallError):
        _Outage(30.0, 0.05).endure(away(retry_after_s=5.0))
    assert time.monotonic() - begin < 0.5


def test_an_answer_ends_the_outage() -> None:
    outage = _Outage(0.35, None)
    for _ in range(3):
        outage.endure(away())
        outage.endure(away())
        outage.over()
