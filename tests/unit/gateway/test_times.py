from __future__ import annotations

import datetime
import re
from collections.abc import Callable

import pytest

from gateway import times


@pytest.mark.parametrize(
    ("present", "form"),
    [
        (times.now, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"),
        (times.now_ms, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    ],
)
def test_the_present_time_is_utc(present: Callable[[], str], form: str) -> None:
    text = present()
    assert re.fullmatch(form, text)
    said = datetime.datetime.fromisoformat(text)
    assert abs((datetime.datetime.now(datetime.UTC) - said).total_seconds()) < 60


def test_texts_have_order_of_times() -> None:
    days = [times.before_now(datetime.timedelta(days=age)) for age in (800, 40, 2, 1)]
    assert sorted([*days, times.now()]) == [*days, times.now()]
