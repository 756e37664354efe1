"""RPCs of ActorService, and the work behind them: enrolments, and a gateway's part in erasing a person."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from google.longrunning import operations_pb2

from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1 import gateway_pb2_grpc
from gateway.actors.consents import Withdrawal, check_digest
from gateway.actors.create import EnrolRequest, ForOperation, digests_of_files, joined_digest
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.actors.stored import ActorSummary, StoredActor, check_actor_id
from gateway.actors.sweep import OtherStore
from gateway.api.context import TenantContext
from gateway.api.convert import actor_message, enrol_request_from, receipt_message, withdrawal_message
from gateway.api.operations import ACTOR, operation_message, page_size_from, request_identity
from gateway.api.progress import OperationReporter, enrolment_steps
from gateway.api.resources import ACTORS, id_of
from gateway.async_utilities import entered_in_threads, in_thread
from gateway.audit.entries import EventKind
from gateway.live.streams import LiveStreams
from gateway.operations.execution import BegunOperation
from gateway.operations.runner import OperationRunner
from gateway.operations.step_paces import StepPaces
from gateway.operations.store import OperationRecord, RequestIdentity
from gateway.stages.interface import Stages
from services.common.errors import ActorError, DubstageError, InvalidRequestError, UnexpectedError
from services.common.methods import method_named
from services.common.server import error_status

POLL_S: Final = 0.5
"""Seconds between two looks for erasures that other processes asked for."""
STREAMS_S: Final = 2 * POLL_S
"""Seconds after which the live streams of all gateways have ended: each gateway has looked for erasures."""
_log = structlog.stdlib.get_logger("dubstage.erasures")


@dataclass(frozen=True, slots=True)
class EnrolmentHandler:
    """Handler of CreateActor's operations.

    Attributes:
        context: what the operations work with.
        stages: returns the opened stages.
    """

    context: TenantContext
    stages: Callable[[], Stages]

    async def __call__(self, operation: BegunOperation) -> bytes:
        """Enrol a person; return the serialised Actor. A resumed operation that had stored the actor answers that actor."""
        message = pb.CreateActorRequest.FromString(operation.record.request)
        context = self.context

        async with context.media.opened() as media:
            request = await in_thread(partial(enrol_request_from, message, media, threads=context.engine.threads))
            steps = enrolment_steps(method_named(request.method), skip=not request.options.trains)
            report = OperationReporter(operation, steps, paces=StepPaces(context.engine.jobs.parent, request.method))
            if await media.fetch(report, max_bytes=context.engine.max_job_bytes, confirm=operation.confirm):
                request = await in_thread(partial(enrol_request_from, message, media, threads=context.engine.threads))
            actor = await self._stored_before(request) if operation.resumed else None
            if actor is None:
                actor = await context.engine.create_actor(
                    request,
                    self.stages(),
                    on_progress=report,
                    on_footage=report.footage,
                    operation=ForOperation(operation.record.name, operation.confirm),
                )
                await asyncio.to_thread(report.learn)
        if operation.resumed:
            await context.forget_others(operation.record)
        answer = actor_message(actor.summary)
        answer.warnings.extend(context.names.for_caller(media.for_caller(warning)) for warning in actor.warnings)
        return answer.SerializeToString()

    async def _stored_before(self, request: EnrolRequest) -> StoredActor | None:
        """Return the actor that an earlier process stored from this footage; None: there is none."""
        actor = await asyncio.to_thread(self.context.engine.actors.find, request.actor_id)
        if actor is None or actor.footage_sha256 != joined_digest(await asyncio.to_thread(digests_of_files, request.files)):
            return None
        return actor


class ActorEraser:
    """Erases people while work with them may run in this process, and in other gateways.

    Args:
        actors: the enrolled people.
        runner: runs the operations.
        live: opens live streams.
        clean: removes from this gateway's disk the jobs that another gateway has erased; blocks.
        others: further stores that hold something of people.
    """

    def __init__(
        self,
        actors: ActorStore,
        runner: OperationRunner,
        live: LiveStreams,
        clean: Callable[[], None],
        others: Sequence[OtherStore],
    ) -> None:
        self._actors = actors
        self._erasures = actors.erasures
        self._runner = runner
        self._live = live
        self._clean = clean
        self._others = others
        self._mine: set[int] = set()
        self._seen: set[int] = set()

    async def erase(self, actor_id: str) -> ErasureReceipt:
        """Erase a person, and return the receipt.

        If the call is cancelled, `watch` of this or the next gateway erases the person, and the next call gets the receipt.

        Raises:
            ActorError: there is no such actor, and no operation or job names the person.
            OverloadedError: work on the person did not stop in time.
            StorageRefusedError: something of the person is left; the message says what and where.
        """
        number = await asyncio.to_thread(self._erasures.ask, actor_id)
        self._mine.add(number)
        try:
            receipt = await self._answer(number, actor_id)
        except Exception:
            await in_thread(self._erasures.withdraw, number)
            raise
        finally:
            self._mine.discard(number)
        # The person is erased: a database that does not answer now keeps no receipt from the caller.
        with suppress(DubstageError):
            await in_thread(self._erasures.received, number)
        return receipt

    async def _answer(self, number: int, actor_id: str) -> ErasureReceipt:
        while True:
            async with entered_in_threads(self._erasures.turn(number)) as mine:
                # Another gateway may have seen the erasure first.
                receipt = await asyncio.to_thread(self._erasures.answer, number)
                if receipt is None and mine:
                    receipt = await self._receipt_of(number, actor_id)
            if receipt is not None:
                return receipt
            await asyncio.sleep(POLL_S)

    async def watch(self) -> None:
        """End the live streams of people who are erased, and carry out what other processes ask for, until cancelled."""
        erasing: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    # An erasure that takes long delays no look: the erasures of other gateways wait for the streams of this one.
                    erasures = await self._look()
                    if erasures and (erasing is None or erasing.done()):
                        erasing = asyncio.create_task(self._carry_out_all(erasures))
                except DubstageError as problem:
                    _log.warning("erasures_not_seen", reason=problem.reason, message=problem.message)
                except Exception:
                    _log.exception("erasures_not_seen")
                await asyncio.sleep(POLL_S)
        finally:
            if erasing is not None:
                erasing.cancel()
                await asyncio.gather(erasing, return_exceptions=True)

    async def _look(self) -> Sequence[tuple[int, str]]:
        """End the live streams of people who are erased, and return the open erasures that other processes asked for."""
        await in_thread(self._actors.database.keep_claim)
        erasures = await in_thread(self._erasures.open)
        for _, actor_id in erasures:
            self._live.forget(actor_id)
        for actor_id in await in_thread(self._erasures.gone, self._live.shown()):
            self._live.forget(actor_id)
        await self._clean_after({number for number, _ in erasures})
        return [(number, actor_id) for number, actor_id in erasures if number not in self._mine]

    async def _carry_out_all(self, erasures: Sequence[tuple[int, str]]) -> None:
        for number, actor_id in erasures:
            await self._carry_out_for(number, actor_id)

    async def _clean_after(self, numbers: Collection[int]) -> None:
        """Remove what is left of erased people on this gateway's disk, when an erasure that was open has ended."""
        ended = self._seen.difference(numbers)
        self._seen = set(numbers)
        if ended and self._erasures.shared:
            await in_thread(self._clean)

    async def _carry_out_for(self, number: int, actor_id: str) -> None:
        try:
            async with entered_in_threads(self._erasures.turn(number)) as mine:
                if not mine or (number, actor_id) not in await asyncio.to_thread(self._erasures.open):
                    return
                await self._carry_out(actor_id)
            _log.info("actor_erased", actor_id=actor_id)
        except Exception as problem:
            error = error_status.domain_error(problem)
            fields = {"error_id": error.error_id, "exc_info": problem} if isinstance(error, UnexpectedError) else {}
            _log.warning("actor_not_erased", reason=error.reason, message=error.message, **fields)
            await asyncio.to_thread(self._erasures.fail, number, error)

    async def _receipt_of(self, number: int, actor_id: str) -> ErasureReceipt:
        try:
            return await self._carry_out(actor_id)
        except ActorError:
            # Another caller erased the person meanwhile. All callers who asked get the receipt.
            receipt = await asyncio.to_thread(self._erasures.answer, number)
            if receipt is None:
                raise
            return receipt

    async def _carry_out(self, actor_id: str) -> ErasureReceipt:
        """Stop all work on a person in all gateways, then erase the person."""
        self._live.forget(actor_id)
        if self._erasures.shared:
            await asyncio.sleep(STREAMS_S)
        await self._runner.stop_work_on(actor_id)
        self._live.forget(actor_id)
        receipt = await in_thread(self._erasures.carry_out, actor_id, others=self._others)
        # Work that began at the last moment has found the erasure, and is forgotten with the rest.
        try:
            await self._runner.stop_work_on(actor_id)
        finally:
            await self._runner.forget_actor(actor_id)
        for other in self._others:
            await in_thread(other.forget, actor_id)
        self._live.forget(actor_id)
        return receipt


class ActorServicer(gateway_pb2_grpc.ActorServiceServicer):
    """Enrols, shows and erases people, and withdraws consents.

    Args:
        context: what the operations work with.
        runner: runs the operations.
        eraser: erases people.
    """

    def __init__(self, context: TenantContext, runner: OperationRunner, eraser: ActorEraser) -> None:
        self._context = context
        self._runner = runner
        self._eraser = eraser

    async def CreateActor(self, request: pb.CreateActorRequest, context: Any) -> operations_pb2.Operation:  # noqa: N802
        """Begin an enrolment."""
        identity = request_identity(request)
        wanted = deepcopy(request)
        # The id is stored with the request, so that an operation that is resumed after a restart makes the same actor.
        wanted.actor_id = request.actor_id or f"actor-{secrets.token_hex(6)}"
        return operation_message(await self._runner.once(identity, partial(self._begin, wanted, identity)))

    async def _begin(self, wanted: pb.CreateActorRequest, identity: RequestIdentity) -> OperationRecord:
        async with self._context.media.opened() as media:
            enrol = await in_thread(partial(enrol_request_from, wanted, media, threads=self._context.engine.threads))
            await asyncio.to_thread(self._context.engine.actors.consents.check_enrolment, enrol.consent, enrol.use, wanted.actor_id)
            await asyncio.to_thread(self._context.engine.actors.check_free, enrol.actor_id)
            await asyncio.to_thread(media.check, overwrite=False)
        if await self._runner.concerns(enrol.actor_id):
            raise InvalidRequestError(f"an operation on {enrol.actor_id!r} has not ended", field="actor_id", named=True)
        quota = self._context.quota
        await quota.check_storage()
        return await self._runner.submit(
            ACTOR,
            wanted.SerializeToString(),
            actor_id=enrol.actor_id,
            admit=quota.check_dubs,
            identity=identity,
        )

    async def GetActor(self, request: pb.GetActorRequest, context: Any) -> pb.Actor:  # noqa: N802
        """Return one actor."""
        actor = await asyncio.to_thread(self._context.engine.actors.show, _id_of(request.name))
        return (await asyncio.to_thread(self._messages, [actor]))[0]

    async def GetActorPicture(self, request: pb.GetActorPictureRequest, context: Any) -> pb.ActorPicture:  # noqa: N802
        """Return the picture of one actor."""
        jpeg = await asyncio.to_thread(self._context.engine.actors.picture, _id_of(request.name))
        return pb.ActorPicture(media_type="image/jpeg", data=jpeg)

    async def ListActors(self, request: pb.ListActorsRequest, context: Any) -> pb.ListActorsResponse:  # noqa: N802
        """List actors in the order of their ids."""
        size = page_size_from(request.page_size)
        after = check_actor_id(request.page_token, "page_token") if request.page_token else ""
        actors = await asyncio.to_thread(lambda: self._context.engine.actors.list(after=after, limit=size + 1))
        page = actors[:size]
        token = page[-1].actor_id if len(actors) > size else ""
        return pb.ListActorsResponse(actors=await asyncio.to_thread(self._messages, page), next_page_token=token)

    def _messages(self, actors: Sequence[ActorSummary]) -> list[pb.Actor]:
        """Return the messages of actors with the numbers of their dubs. Blocks."""
        counts = self._context.engine.actors.audit.counts(EventKind.DUB_ENDED, [actor.actor_id for actor in actors])
        return [actor_message(actor, counts.get(actor.actor_id, 0)) for actor in actors]

    async def EraseActor(self, request: pb.EraseActorRequest, context: Any) -> pb.EraseActorResponse:  # noqa: N802
        """Stop all work on a person, then erase the person."""
        actor_id = _id_of(request.name)
        # First: an error behind the erasure would lose the receipt.
        key = await asyncio.to_thread(self._context.engine.actors.erasures.signing_key)
        receipt = await self._eraser.erase(actor_id)
        return receipt_message(receipt, key.public_pem if key.id == receipt.key else "")

    async def RevokeConsent(self, request: pb.RevokeConsentRequest, context: Any) -> pb.RevokeConsentResponse:  # noqa: N802
        """Withdraw a consent record. Work with the record ends in all gateways at their next look at the database."""
        return withdrawal_message(await asyncio.to_thread(self._withdraw, request))

    def _withdraw(self, request: pb.RevokeConsentRequest) -> Withdrawal:
        actors = self._context.engine.actors
        if bool(request.actor) == bool(request.record_sha256):
            raise InvalidRequestError("give either the actor or the digest of the record", field="actor", named=True)
        if request.record_sha256:
            return actors.consents.withdraw(check_digest(request.record_sha256))
        actor_id = _id_of(request.actor, "actor")
        return actors.consents.withdraw_of(actor_id, actors.show(actor_id).consent)


def _id_of(name: str, field: str = "name") -> str:
    return check_actor_id(id_of(name, ACTORS, field), field)
