"""A gateway's part in erasing a person: it ends the operations and the live streams that use the person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog

from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.actors.sweep import OtherStore
from gateway.ahead import in_thread
from gateway.live.streams import LiveStreams
from gateway.operations.runner import JobRunner
from services.common.chassis import error_status
from services.common.errors import ActorNotReady, DubstageError, Unexpected

LOOK_S: Final = 0.5
"""Seconds between two looks for erasures that other processes asked for."""
STREAMS_S: Final = 2 * LOOK_S
"""Seconds after which the live streams of all gateways have ended: each gateway has looked for erasures."""

_log = structlog.stdlib.get_logger("dubstage.erasures")


class ActorEraser:
    """Erases people while work with them may run in this process, and in other gateways.

    Args:
        actors: the enrolled people.
        runner: runs the operations.
        live: opens live streams.
        clean: removes from this gateway's disk the jobs that another gateway has erased; blocks.
        pictures: opens the pictures in the store of batches; blocks.
    """

    def __init__(
        self,
        actors: ActorStore,
        runner: JobRunner,
        live: LiveStreams,
        clean: Callable[[], None],
        pictures: Callable[[], OtherStore],
    ) -> None:
        self._actors = actors
        self._erasures = actors.erasures
        self._runner = runner
        self._live = live
        self._clean = clean
        self._pictures = pictures
        self._mine: set[int] = set()
        self._seen: set[int] = set()

    async def erase(self, actor_id: str) -> ErasureReceipt:
        """Erase a person, and return the receipt.

        Raises:
            ActorNotReady: there is no such actor, and no operation or job names the person.
            Overloaded: work on the person did not stop in time.
            StorageRefused: something of the person is left; the message says what and where.
        """
        number = await asyncio.to_thread(self._erasures.ask, actor_id)
        self._mine.add(number)
        try:
            while True:
                async with self._turn(number) as mine:
                    # Another gateway may have seen the erasure first.
                    found = await asyncio.to_thread(self._erasures.answer, number)
                    if found is None and mine:
                        found = await self._receipt_of(number, actor_id)
                if found is not None:
                    return found
                await asyncio.sleep(LOOK_S)
        finally:
            await in_thread(self._erasures.withdraw, number)
            self._mine.discard(number)

    async def watch(self) -> None:
        """End the live streams of people who are erased, and carry out what other processes ask for, until cancelled."""
        erasing: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    # An erasure that takes long delays no look: the erasures of other gateways wait for the streams of this one.
                    found = await self._look()
                    if found and (erasing is None or erasing.done()):
                        erasing = asyncio.create_task(self._carry_out_all(found))
                except DubstageError as problem:
                    _log.warning("erasures_not_seen", reason=problem.reason, message=problem.message)
                except Exception:
                    _log.exception("erasures_not_seen")
                await asyncio.sleep(LOOK_S)
        finally:
            if erasing is not None:
                erasing.cancel()
                await asyncio.gather(erasing, return_exceptions=True)

    async def _look(self) -> Sequence[tuple[int, str]]:
        """End the live streams of people who are erased, and return the open erasures that other processes asked for."""
        await in_thread(self._actors.database.keep_claim)
        found = await in_thread(self._erasures.open)
        for _, actor_id in found:
            self._live.forget(actor_id)
        for actor_id in await in_thread(self._erasures.gone, self._live.shown()):
            self._live.forget(actor_id)
        await self._clean_after({number for number, _ in found})
        return [(number, actor_id) for number, actor_id in found if number not in self._mine]

    async def _carry_out_all(self, found: Sequence[tuple[int, str]]) -> None:
        for number, actor_id in found:
            await self._carry_out_for(number, actor_id)

    async def _clean_after(self, found: Collection[int]) -> None:
        """Remove what is left of erased people on this gateway's disk, when an erasure that was open has ended."""
        ended = self._seen.difference(found)
        self._seen = set(found)
        if ended and self._erasures.shared:
            await in_thread(self._clean)

    async def _carry_out_for(self, number: int, actor_id: str) -> None:
        try:
            async with self._turn(number) as mine:
                if not mine or (number, actor_id) not in await asyncio.to_thread(self._erasures.open):
                    return
                await self._carry_out(actor_id)
            _log.info("actor_erased", actor_id=actor_id)
        except Exception as problem:
            found = error_status.domain_error(problem)
            fields = {"error_id": found.error_id, "exc_info": problem} if isinstance(found, Unexpected) else {}
            _log.warning("actor_not_erased", reason=found.reason, message=found.message, **fields)
            await asyncio.to_thread(self._erasures.fail, number, found)

    async def _receipt_of(self, number: int, actor_id: str) -> ErasureReceipt:
        try:
            return await self._carry_out(actor_id)
        except ActorNotReady:
            # Another caller erased the person meanwhile. All callers who asked get the receipt.
            found = await asyncio.to_thread(self._erasures.answer, number)
            if found is None:
                raise
            return found

    @asynccontextmanager
    async def _turn(self, number: int) -> AsyncIterator[bool]:
        """Give True if no other gateway carries out this erasure."""
        turn = self._erasures.turn(number)
        mine = await in_thread(turn.__enter__)
        try:
            yield mine
        finally:
            await in_thread(turn.__exit__, None, None, None)

    async def _carry_out(self, actor_id: str) -> ErasureReceipt:
        """Stop all work on a person in all gateways, then erase the person."""
        self._live.forget(actor_id)
        if self._erasures.shared:
            await asyncio.sleep(STREAMS_S)
        await self._runner.stop_work_on(actor_id)
        self._live.forget(actor_id)
        pictures = await in_thread(self._pictures)
        receipt = await in_thread(self._erasures.carry_out, actor_id, others=[pictures])
        # Work that began at the last moment has found the erasure, and is forgotten with the rest.
        await self._runner.stop_work_on(actor_id)
        await self._runner.forget_actor(actor_id)
        self._live.forget(actor_id)
        return receipt
