"""Calls to stages: refuse a call that cannot end before its deadline, and repeat a unit of work on another replica.

Some calls answer a whole video. Where such a call can go on in another call (tracking, insides of mouths, turned portraits), the
caller ends the call before the deadline (`CallTime`). Features of speech and predicted motion begin anew, so a call that turns out
too slow for its deadline is given up early (`CallPace`).

A unit of work (a pass, a window, a bank, a personalisation) gets a second attempt on another replica if its replica goes away.

Stages are pure, so a second attempt gives the same bytes on a replica of the same kind (docs/determinism.md).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from services.common.errors import InvalidRequestError
from services.common.server.retries import RetryPolicy, retry

T = TypeVar("T")

JOB_POLICY: Final = RetryPolicy(max_attempts=8, initial_backoff_s=0.2, overload_patience_s=600.0)
"""Retries for about 18 s: a stage that restarts is found again, and a stage that stays away is an error within half a minute."""


async def until_done(work: Callable[[], Awaitable[T]], *, progress: Callable[[], int] | None = None) -> T:
    """Return the result of `work`, which begins anew after errors that are worth another attempt (see `retry`).

    Args:
        work: one attempt.
        progress: returns a number that grows as the work gets on; an attempt that gets further than all before counts as the first.

    Raises:
        DubstageError: the error of the last attempt.
    """
    return await retry(work, JOB_POLICY, progress=progress)


async def all_replies(call: Callable[[], AsyncIterator[T]]) -> list[T]:
    """Return all replies of one stream; all replies are of the same attempt.

    Args:
        call: opens the stream with fresh requests, once for each attempt.

    Raises:
        DubstageError: the error of the last attempt.
    """

    async def work() -> list[T]:
        return [reply async for reply in call()]

    return await until_done(work)


_NEARLY_OVER: Final = 0.75
"""Share of the deadline after which a call that can go on in another call is ended."""


class CallTime:
    """Time since the beginning of a call.

    Args:
        deadline_s: longest time of the call, seconds; None: the call has no deadline.
        clock: returns the time, seconds.
    """

    def __init__(self, deadline_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = None if deadline_s is None else clock() + _NEARLY_OVER * deadline_s

    @property
    def nearly_over(self) -> bool:
        """Whether most of the time is over, so that the caller ends the call at the next occasion."""
        return self._until is not None and self._clock() > self._until


_SAFE: Final = 0.9
"""Share of the deadline that the advised length takes."""
_LEAST_S: Final = 10.0
"""Seconds of answers from which the speed is believed."""
_DOUBT_S: Final = 20.0
"""After t seconds of answers, the foreseen time may exceed the deadline by the share _DOUBT_S / t: stages are slow for a while."""


class CallPace:
    """Pace of one call that answers the frames of a video in order, during the work.

    Args:
        deadline_s: longest time of the call, seconds; None: the call has no deadline.
        stage: name of the stage.
        what: what the call works on, such as `film.mp4`.
        num_frames: frames that the call would answer.
        seconds: length of these frames, seconds.
        clock: returns the time, seconds.
    """

    def __init__(
        self,
        deadline_s: float | None,
        stage: str,
        what: str,
        num_frames: int,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deadline_s, self._stage, self._what = deadline_s, stage, what
        self._num_frames, self._seconds = num_frames, seconds
        self._clock = clock
        self._began = clock()
        # Instant and number of answers that the pace is measured from.
        self._first: tuple[float, int] | None = None

    def answered(self, done: int) -> None:
        """Count answers.

        Args:
            done: frames that are answered, together.

        Raises:
            InvalidRequestError: at the speed so far, the call would end long after its deadline.
        """
        if self._deadline_s is None:
            return
        now = self._clock()
        if self._first is None:
            self._first = (now, done)
            return
        began, before = self._first
        spent = now - began
        if spent < _LEAST_S or done <= before:
            return
        rate = (done - before) / spent
        total_s = now - self._began + (self._num_frames - done) / rate
        if total_s > self._deadline_s * (1.0 + _DOUBT_S / spent):
            raise self._too_long(rate, total_s, self._deadline_s)

    def _too_long(self, rate: float, total_s: float, deadline_s: float) -> InvalidRequestError:
        most = int(_SAFE * deadline_s * rate)
        length = shown_time(most * self._seconds / self._num_frames)
        return InvalidRequestError(
            f"{self._what} is too long for stages that are servers: the {self._stage} stage answers {rate:.3g} frames per second, "
            f"so its {self._num_frames} frames take about {shown_time(total_s)}, and one call may last {shown_time(deadline_s)}, "
            f"which is enough for {most} frames ({length}): cut the footage into such parts, dub it with the stages in the process "
            "of the command (without --stages and DUBSTAGE_STAGES_HOST), or raise DUBSTAGE_STAGE_DEADLINE_S of the gateway and "
            "DUBSTAGE_MAX_DEADLINE_S of gateway and stages",
            field="footage",
        )


def shown_time(seconds: float) -> str:
    """Return a time as H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
