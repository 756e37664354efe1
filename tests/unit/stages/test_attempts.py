from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.stages.attempts import JOB_POLICY, all_replies
from services.common.errors import BackendUnavailable, InvalidRequest


def lost() -> BackendUnavailable:
    return BackendUnavailable("gone", retry_after_s=0.0)


async def test_replies_of_a_broken_stream_are_not_mixed_with_those_of_the_next() -> None:
    attempts = 0

    async def replies() -> AsyncIterator[int]:
        nonlocal attempts
        attempts += 1
        for number in range(5):
            if attempts == 1 and number == 3:
                raise lost()
            yield number

    assert await all_replies(replies) == [0, 1, 2, 3, 4]
    assert attempts == 2


async def test_what_is_wrong_with_the_request_comes_out_at_once() -> None:
    attempts = 0

    async def replies() -> AsyncIterator[int]:
        nonlocal attempts
        attempts += 1
        raise InvalidRequest("no such model", field="model")
        yield 0

    with pytest.raises(InvalidRequest):
        await all_replies(replies)
    assert attempts == 1


def test_a_stage_that_is_gone_for_good_is_given_up_within_half_a_minute() -> None:
    error = BackendUnavailable("gone")
    waits = [JOB_POLICY.backoff_s(attempt, error) for attempt in range(1, JOB_POLICY.max_attempts)]
    assert 10 < sum(waits) < 25
