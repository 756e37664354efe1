"""The stages for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages

T = TypeVar("T")


class StageHost:
    """The stages of the settings, in an event loop that runs in a thread of its own; a context manager."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="stages", daemon=True)
        self._stack = AsyncExitStack()
        self.stages: Stages

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and return the result."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        self.stages = self.run(self._stack.enter_async_context(open_stages(self._settings)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        # At its end a runner cancels the tasks that are left and closes the loop.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()
