"""The stages of a gateway process, opened after the process has begun to listen."""

from __future__ import annotations

from contextlib import AsyncExitStack

from gateway.operations.job import Handler, Job
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.local import LocalStages
from gateway.stages.opening import open_stages
from gateway.stages.remote import RemoteStages
from services.common.errors import ModelNotReady


class OpenedStages:
    """The stages of one gateway process.

    Args:
        settings: settings of the process, with the stages' endpoints.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._stages: Stages | None = None
        self._stack = AsyncExitStack()

    def __call__(self) -> Stages:
        """Return the stages.

        Raises:
            ModelNotReady: the stages are not open yet.
        """
        if self._stages is None:
            raise ModelNotReady("the gateway is still warming up")
        return self._stages

    @property
    def busy(self) -> bool:
        """Whether a stage in this process still computes."""
        return isinstance(self._stages, LocalStages) and self._stages.busy

    async def open(self) -> None:
        """Open the stages.

        Raises:
            DubstageError: a stage cannot be reached, or does not warm up.
        """
        opening = open_stages(self._settings, connect_s=self._settings.stages_start_s)
        self._stages = await self._stack.enter_async_context(opening)

    async def close(self) -> None:
        """Close the stages."""
        await self._stack.aclose()

    async def serving(self) -> Stages:
        """Return the stages, as soon as all of them serve.

        A stage that rests has no replica. Starting a replica for the work takes longer than retries of single calls.

        Raises:
            ModelNotReady: the stages are not open yet.
            BackendUnavailable: a stage does not serve within `stages_start_s`.
        """
        stages = self()
        if isinstance(stages, RemoteStages):
            await stages.wait_until_serving(self._settings.stages_start_s)
        return stages

    def once_serving(self, handler: Handler) -> Handler:
        """Return a handler that waits until all stages serve, and then does the work of `handler`."""

        async def run(job: Job) -> bytes:
            await self.serving()
            return await handler(job)

        return run
