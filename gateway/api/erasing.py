"""The gateway's part in erasing a person: it ends the operations and the live streams that use the person."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.ahead import in_thread
from gateway.live.streams import LiveStreams
from gateway.operations.runner import JobRunner
from services.common.chassis import error_status
from services.common.errors import DubstageError, Unexpected

LOOK_S: Final = 0.5
"""Seconds between two looks for erasures that other processes asked for."""

_log = structlog.stdlib.get_logger("dubstage.erasures")


class ActorEraser:
    """Erases people while work with them may run in this process.

    Args:
        actors: the enrolled people.
        runner: runs the operations.
        live: opens live streams.
    """

    def __init__(self, actors: ActorStore, runner: JobRunner, live: LiveStreams) -> None:
        self._actors = actors
        self._erasures = actors.erasures
        self._runner = runner
        self._live = live
        self._mine: set[int] = set()

    async def erase(self, actor_id: str) -> ErasureReceipt:
        """Erase a person, and return the receipt.

        Raises:
            ActorNotReady: there is no such actor, and no operation or job names the person.
            Overloaded: work on the person did not stop in time.
        """
        number = await asyncio.to_thread(self._erasures.ask, actor_id)
        self._mine.add(number)
        try:
            return await self._carry_out(actor_id)
        finally:
            await in_thread(self._erasures.withdraw, number)
            self._mine.discard(number)

    async def watch(self) -> None:
        """Carry out the erasures that other processes ask for, until cancelled."""
        while True:
            try:
                for number, actor_id in await asyncio.to_thread(self._erasures.open):
                    if number not in self._mine:
                        await self._carry_out_for(number, actor_id)
                for actor_id in await asyncio.to_thread(self._erasures.gone, self._live.shown()):
                    self._live.forget(actor_id)
            except DubstageError as problem:
                _log.warning("erasures_not_seen", reason=problem.reason, message=problem.message)
            except Exception:
                _log.exception("erasures_not_seen")
            await asyncio.sleep(LOOK_S)

    async def _carry_out_for(self, number: int, actor_id: str) -> None:
        try:
            await self._carry_out(actor_id)
            _log.info("actor_erased", actor_id=actor_id)
        except Exception as problem:
            found = error_status.domain_error(problem)
            fields = {"error_id": found.error_id, "exc_info": problem} if isinstance(found, Unexpected) else {}
            _log.warning("actor_not_erased", reason=found.reason, message=found.message, **fields)
            await asyncio.to_thread(self._erasures.fail, number, found)

    async def _carry_out(self, actor_id: str) -> ErasureReceipt:
        """Stop all work on a person, then erase the person."""
        await self._runner.stop_work_on(actor_id)
        self._live.forget(actor_id)
        receipt = await in_thread(self._erasures.carry_out, actor_id)
        # Work that began at the last moment has found the erasure, and is forgotten with the rest.
        await self._runner.stop_work_on(actor_id)
        await self._runner.forget_actor(actor_id)
        self._live.forget(actor_id)
        return receipt
