"""Reads ahead within bounds, so that chained stages work at the same time, and waits for all tasks and threads that were
started.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _End:
    """Stands in the queue of a reader whose source has ended."""


class ReadAhead(AsyncIterator[T]):
    """Items of a source, which a task reads, at most `size` items ahead. One task at a time may wait for items.

    The maker of a reader calls `aclose`. After that no task gets an item: a task that waits for the next item sees the end of the
    items. gRPC reads requests in a task of its own, and when a call has failed, that task still waits for the next request.
    """

    def __init__(self, source: AsyncIterator[T], size: int) -> None:
        """Prepare a reader. Reading begins when the first item is wanted.

        Args:
            source: is closed with the reader.
            size: most items that wait.
        """
        self._source = source
        self._queue: asyncio.Queue[T | _End] = asyncio.Queue(size)
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def has_waiting(self) -> bool:
        """Whether the next item, or the end, is known already."""
        return not self._queue.empty()

    async def __anext__(self) -> T:
        """Return the next item.

        Raises:
            StopAsyncIteration: the source has ended, or the reader is closed.
            Exception: the error of the source, after the items that came before the error.
        """
        if self._ended:
            raise StopAsyncIteration
        if self._task is None:
            self._task = asyncio.create_task(self._read())
            self._task.add_done_callback(self._wake)
        if not (self._task.done() and self._queue.empty()):
            item = await self._queue.get()
            if self._ended:
                raise StopAsyncIteration
            if not isinstance(item, _End):
                return item
        self._ended = True
        self._task.result()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the items and close the source. Returns when both have ended, also where the wait is cancelled."""
        self._ended = True
        try:
            if self._task is not None:
                await cancel_all([self._task])
        finally:
            await close(self._source)

    async def _read(self) -> None:
        async for item in self._source:
            await self._queue.put(item)

    def _wake(self, task: asyncio.Task[None]) -> None:
        if self._queue.empty():
            self._queue.put_nowait(_End())


async def close(source: AsyncIterator[T]) -> None:
    """Close an iterator that can be closed. An iterator that another task is running ends with that task."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        with suppress(RuntimeError):
            await aclose()


async def gather_all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Do several works at the same time. The first error ends all of them, and is raised when all have ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_all(tasks)


async def cancel_all(works: Collection[asyncio.Future[Any]]) -> None:
    """Cancel tasks, wait until all have ended as `settle_all` does, and drop their results and errors."""
    for work in works:
        work.cancel()
    await settle_all(works)


async def settle_all(works: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all tasks have ended, and drop their results and errors. A wait that is cancelled waits on, and is cancelled after
    the last task has ended.
    """
    stopped: asyncio.CancelledError | None = None
    while going := [work for work in works if not work.done()]:
        try:
            await asyncio.wait(going)
        except asyncio.CancelledError as error:
            stopped = error
    for work in works:
        if not work.cancelled():
            work.exception()
    if stopped is not None:
        raise stopped


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread as `asyncio.to_thread` does. A cancelled wait still waits until the call has ended, so that the
    caller can close what the call uses.
    """
    return await in_stoppable_thread(partial(function, *args, **kwargs), lambda: None)


async def in_stoppable_thread(function: Callable[[], T], stop: Callable[[], None]) -> T:
    """Call a function in a thread. A cancelled wait calls `stop`, which makes the function end soon, and waits for that end."""
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop()
        await settle_all([work])
        raise


@asynccontextmanager
async def entered_in_threads(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager in threads, and give its value. A task that is cancelled while the manager is
    entered leaves the manager.
    """
    entered: list[T] = []
    try:
        await in_thread(lambda: entered.append(manager.__enter__()))
        yield entered[0]
    except BaseException:
        if not entered or not await in_thread(manager.__exit__, *sys.exc_info()):
            raise
    else:
        await in_thread(manager.__exit__, None, None, None)
