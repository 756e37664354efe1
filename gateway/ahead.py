"""Reading ahead within bounds, so that chained stages work at the same time, and tasks and threads that are always waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None


async def read_ahead(source: AsyncIterator[T], size: int) -> AsyncGenerator[T, None]:
    """Yield the items of `source`. A task reads the source, at most `size` items ahead.

    Closing the generator cancels the task and closes the source.

    Raises:
        Exception: the error of the source, after the items that came before the error.
    """
    queue: asyncio.Queue[T | _End] = asyncio.Queue(size)

    async def pump() -> None:
        try:
            async for item in source:
                await queue.put(item)
        except Exception as error:
            await queue.put(_End(error))
        else:
            await queue.put(_End(None))

    task = asyncio.create_task(pump())
    try:
        while True:
            item = await queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await close(source)


async def close(source: AsyncIterator[T]) -> None:
    """Close an iterator that can be closed. An iterator that another task is running ends with that task."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        with suppress(RuntimeError):
            await aclose()


async def all_together(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Do several works at the same time. The first error ends all of them, and is raised when all have ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread as `asyncio.to_thread` does. A cancelled wait still waits until the call has ended, so that the
    caller can close what the call uses.
    """
    return await stoppable(partial(function, *args, **kwargs), lambda: None)


async def stoppable(function: Callable[[], T], stop: Callable[[], None]) -> T:
    """Call a function in a thread. A cancelled wait calls `stop`, which makes the function end soon, and waits for that end."""
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop()
        await asyncio.gather(work, return_exceptions=True)
        raise
