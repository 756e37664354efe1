"""The RPCs of ActorService."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from google.longrunning import operations_pb2

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from dubstage.gateway.v1alpha1 import gateway_pb2_grpc
from gateway.actors.actor_id import check_actor_id
from gateway.actors.consents import Withdrawal, check_digest
from gateway.api.actor_messages import actor_message, enrol_request_from, receipt_message
from gateway.api.consent_messages import withdrawal_message
from gateway.api.erasing import ActorEraser
from gateway.api.job_context import JobContext
from gateway.api.operation_messages import ACTOR, operation_message, page_size_from
from gateway.operations.runner import JobRunner
from services.common.errors import InvalidRequest


class ActorServicer(gateway_pb2_grpc.ActorServiceServicer):
    """Enrols, shows and erases people, and withdraws consents.

    Args:
        context: what the operations work with.
        runner: runs the operations.
        eraser: erases people.
    """

    def __init__(self, context: JobContext, runner: JobRunner, eraser: ActorEraser) -> None:
        self._context = context
        self._runner = runner
        self._eraser = eraser

    async def CreateActor(self, request: pb.CreateActorRequest, context: Any) -> operations_pb2.Operation:  # noqa: N802
        """Begin an enrolment."""
        wanted = pb.CreateActorRequest()
        wanted.CopyFrom(request)
        # The id is stored with the request, so that an operation that is resumed after a restart makes the same actor.
        wanted.actor_id = request.actor_id or f"actor-{secrets.token_hex(6)}"
        async with self._context.media.opened() as media:
            enrol = enrol_request_from(wanted, media, threads=self._context.threads)
            await asyncio.to_thread(self._context.actors.consents.check_enrolment, enrol.consent, enrol.use, wanted.actor_id)
            await asyncio.to_thread(self._context.actors.check_free, enrol.actor_id)
            await asyncio.to_thread(media.check, overwrite=False)
        if await self._runner.concerns(enrol.actor_id):
            raise InvalidRequest(f"actor_id: an operation on {enrol.actor_id!r} has not ended", field="actor_id")
        gate = self._context.gate
        await gate.check_storage()
        record = await self._runner.submit(ACTOR, wanted.SerializeToString(), actor_id=enrol.actor_id, admit=gate.check_dubs)
        return operation_message(record)

    async def GetActor(self, request: pb.GetActorRequest, context: Any) -> pb.GetActorResponse:  # noqa: N802
        """Return one actor."""
        actor = await asyncio.to_thread(self._context.actors.show, check_actor_id(request.actor_id))
        return pb.GetActorResponse(actor=actor_message(actor))

    async def ListActors(self, request: pb.ListActorsRequest, context: Any) -> pb.ListActorsResponse:  # noqa: N802
        """List actors in the order of their ids."""
        size = page_size_from(request.page_size)
        after = check_actor_id(request.page_token) if request.page_token else ""
        actors = await asyncio.to_thread(lambda: self._context.actors.list(after=after, limit=size + 1))
        page = actors[:size]
        token = page[-1].actor_id if len(actors) > size else ""
        return pb.ListActorsResponse(actors=[actor_message(actor) for actor in page], next_page_token=token)

    async def EraseActor(self, request: pb.EraseActorRequest, context: Any) -> pb.EraseActorResponse:  # noqa: N802
        """Stop all work on a person, then erase the person."""
        receipt = await self._eraser.erase(check_actor_id(request.actor_id))
        key = await asyncio.to_thread(self._context.actors.erasures.signing_key)
        return receipt_message(receipt, key.public_pem if key.id == receipt.key else "")

    async def RevokeConsent(self, request: pb.RevokeConsentRequest, context: Any) -> pb.RevokeConsentResponse:  # noqa: N802
        """Withdraw a consent record. Work with the record ends in all gateways at their next look at the database."""
        return withdrawal_message(await asyncio.to_thread(self._withdraw, request))

    def _withdraw(self, request: pb.RevokeConsentRequest) -> Withdrawal:
        actors = self._context.actors
        if bool(request.actor_id) == bool(request.record_sha256):
            raise InvalidRequest("actor_id: give either the actor or the digest of the record", field="actor_id")
        if request.record_sha256:
            return actors.consents.withdraw(check_digest(request.record_sha256))
        return actors.consents.withdraw_of(request.actor_id, actors.show(check_actor_id(request.actor_id)).consent)
