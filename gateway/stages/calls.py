"""Calls to stages: end a call before its deadline and go on in another, and repeat a unit of work on another replica.

Some calls answer a whole video. The caller ends such a call before the deadline (`CallTime`), and goes on in another call.

A unit of work (a pass, a window, a bank, a personalisation) gets a second attempt on another replica if its replica goes away.

Stages are pure, so a second attempt gives the same bytes on a replica of the same kind (docs/determinism.md).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from dubstage.audio.v1.audio_pb2 import ExtractFeaturesResponse
from dubstage.client.rpcs import Stream
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1.motion_pb2 import PredictMotionResponse
from gateway.async_utilities import ReadAhead, close
from gateway.stages.interface import Stages
from services.common.errors import BackendUnavailableError, InvalidRequestError
from services.common.server.retries import RetryPolicy, retry

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
R_contra = TypeVar("R_contra", contravariant=True)
P = TypeVar("P", bound="StreamPoint[Any]")

JOB_POLICY: Final = RetryPolicy(max_attempts=8, initial_backoff_s=0.2, overload_patience_s=600.0)
"""Retries for about 18 s: a stage that restarts is found again, and a stage that stays away is an error within half a minute."""
NEARLY_OVER: Final = 0.75
"""Share of the deadline after which a call that can go on in another call is ended."""
_FIELDS_OF_STATES: Final = ("config.resume", "chunk.first_sample", "features.first_frame")
"""Fields that a stage refuses if it does not take a state, or knows no states."""


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


class CallTime:
    """Time since the beginning of a call.

    Args:
        deadline_s: longest time of the call, seconds; None: the call has no deadline.
        clock: returns the time, seconds.
    """

    def __init__(self, deadline_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = None if deadline_s is None else clock() + NEARLY_OVER * deadline_s

    @property
    def nearly_over(self) -> bool:
        """Whether most of the time is over, so that the caller ends the call at the next occasion."""
        return self._until is not None and self._clock() > self._until


class StreamPoint(Protocol[R_contra]):
    """Where a stream of answers goes on when a call has ended early."""

    state: common_pb2.StreamState | None
    """State of the stage; None: the stream begins."""

    def move(self, reply: R_contra) -> bool:
        """Move to the state of a reply, and return whether the reply has one."""

    def begin_anew(self) -> None:
        """Forget the state, so that the next call answers from the beginning."""


@dataclass(slots=True)
class CallPoint:
    """Where a stream of features or of motion goes on.

    Attributes:
        state: state of the stage; None: the stream begins.
        begin: first sample, or first frame of features, that the next call sends.
    """

    state: common_pb2.StreamState | None = None
    begin: int = 0

    def move(self, reply: ExtractFeaturesResponse | PredictMotionResponse) -> bool:
        """Move to the state of a reply, and return whether the reply has one. A reply with a state has no frames."""
        if not reply.HasField("state"):
            return False
        self.state, self.begin = reply.state, int(reply.resume_from)
        return True

    def begin_anew(self) -> None:
        """Forget the state, so that the next call begins with the first sample or frame."""
        self.state, self.begin = None, 0


async def continued(
    stages: Stages,
    rpc: Stream[Q, R],
    requests: Callable[[P], AsyncIterator[Q]],
    point: P,
    *,
    ahead: int = 1,
    stage: str = "the stage",
    resumed: Callable[[R], bool] = lambda reply: True,
) -> AsyncGenerator[R, None]:
    """Yield the replies of a stream that calls answer one after the other. Closing the generator ends the call.

    A call that comes near the deadline is ended at a state, and a further call goes on from the state.

    Args:
        requests: yields a config that asks for states and has the state of a point, then what the call reads from the point on.
        point: is moved to each state that comes, after the reply was yielded. After an error, another attempt goes on from the
            point, and repeats the replies after it.
        ahead: most requests that wait for the stage, and most replies that wait to be taken.
        stage: the stage, as errors name it.
        resumed: returns whether a call that was given a state went on from the state.

    Raises:
        BackendUnavailableError: a stage of another version does not take the state. The point is then at the beginning.
        DubstageError: from the stage.
    """
    ended = False
    while not ended:
        time_of_call = CallTime(stages.call_deadline_s)
        resumes, ended = point.state is not None, True
        async with AsyncExitStack() as stack:
            messages = ReadAhead(requests(point), ahead)
            stack.push_async_callback(close, messages)
            replies = await stack.enter_async_context(aclosing(ReadAhead(stages.stream(rpc, messages), ahead)))
            try:
                async for reply in replies:
                    if resumes and not resumed(reply):
                        point.begin_anew()
                        raise BackendUnavailableError(f"{stage} began anew and did not go on from its state")
                    yield reply
                    if point.move(reply) and time_of_call.nearly_over:
                        ended = False
                        break
            except InvalidRequestError as problem:
                if not (resumes and (problem.field or "").startswith(_FIELDS_OF_STATES)):
                    raise
                point.begin_anew()
                raise BackendUnavailableError(f"{stage} is of another version: {problem.message}") from problem
