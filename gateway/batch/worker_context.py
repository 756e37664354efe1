"""Context of a worker: the stores, the folder of jobs, and the stages, which stay warm from shot to shot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from gateway.actors.installation import Installation, open_installation
from gateway.async_utilities import in_thread
from gateway.batch.locks import shot_lock
from gateway.dub.scratch import ScratchFolders
from gateway.housekeeping.cleaning import expire
from gateway.housekeeping.jobs import open_jobs_folder
from gateway.provenance.seal import Sealer
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages
from gateway.stages.remote import RemoteStages


class WorkerContext:
    """Stores, folders and stages that a worker dubs shots with. `open_worker_context` makes the context.

    Attributes:
        place: the open stores, with the settings.
        jobs: folder of all jobs.

    Args:
        place: see the attribute.
        jobs: see the attribute.
        stack: closes what the context opens.
        serving: returns stages that are open already, as soon as they serve; None: the context opens stages of its own.
    """

    def __init__(
        self, place: Installation, jobs: Path, stack: AsyncExitStack, serving: Callable[[], Awaitable[Stages]] | None = None
    ) -> None:
        self.place = place
        self.jobs = jobs
        self._stack = stack
        self._serving = serving
        self._opened: Stages | None = None
        self._sealer: Sealer | None = None
        self._opening = asyncio.Lock()
        self._scratch = ScratchFolders(place.settings.data_dir)
        stack.callback(self._scratch.close)

    @property
    def settings(self) -> GatewaySettings:
        """Settings of the process."""
        return self.place.settings

    async def stages(self) -> Stages:
        """Return the stages. The first call opens them. Later calls wait until each remote stage serves again.

        Raises:
            DubstageError: the stages cannot be opened, or a remote stage does not serve within `stages_start_s`.
        """
        if self._serving is not None:
            return await self._serving()
        limit_s = self.settings.stages_start_s
        async with self._opening:
            if self._opened is None:
                self._opened = await self._stack.enter_async_context(open_stages(self.settings, connect_s=limit_s))
            elif isinstance(self._opened, RemoteStages):
                await self._opened.wait_until_serving(limit_s)
            return self._opened

    async def sealer(self) -> Sealer:
        """Return what signs the films. The first call reads the key.

        Raises:
            DubstageError: the key cannot be used.
        """
        if self._sealer is None:
            self._sealer = await in_thread(self.place.sealer)
        return self._sealer

    def shot_lock(self, shot_url: str) -> AbstractAsyncContextManager[None]:
        """Wait until no other worker of this machine has a shot, and keep the shot inside the block. See `turns.shot_lock`."""
        return shot_lock(self.settings.data_dir, shot_url)

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Make an empty folder for copies of media, and remove the folder at the end. Blocks."""
        with self._scratch.folder() as folder:
            yield folder


@asynccontextmanager
async def open_worker_context(settings: GatewaySettings) -> AsyncIterator[WorkerContext]:
    """Open the stores of a worker. At the end, the stages are closed, and old jobs are removed as after a dub.

    Raises:
        DubstageError: the data folder, the database or the artefact store cannot be used.
    """
    jobs = await asyncio.to_thread(open_jobs_folder, settings.data_dir)
    with open_installation(settings) as place:
        async with AsyncExitStack() as stack:
            yield WorkerContext(place, jobs, stack)
        await in_thread(expire, settings, place.actors, place.artefacts, jobs)
