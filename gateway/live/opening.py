"""What is checked before a live stream begins, and recorded when it begins."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AbstractAsyncContextManager

from gateway.actors.store import ActorStore
from gateway.actors.stored import StoredActor
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.work import recorded
from gateway.consent.record import ConsentUse
from gateway.methods import method_named
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for


async def allowed_actor(actors: ActorStore, stages: Stages, actor_id: str, use: ConsentUse) -> StoredActor:
    """Return the actor of a stream, who may be shown now.

    Raises:
        ActorNotReady: there is no such actor.
        ConsentRefused: the actor's consent record does not allow the stream, or is missing and required.
        ModelNotFound: the stages do not have the actor's method.
    """
    actor = await asyncio.to_thread(actors.get, actor_id)
    await asyncio.to_thread(actors.consents.check_enrolled, actor.consent, None, use, actor_id, actor_id=actor_id)
    await models_for(stages, method_named(actor.method).streamed)
    return actor


def recorded_stream(actors: ActorStore, actor: StoredActor) -> AbstractAsyncContextManager[object]:
    """Record in the audit log that a stream begins, and how it ends."""
    return recorded(actors.audit, _begun(actor))


def _begun(actor: StoredActor) -> AuditEvent:
    """Return what the audit log records when a stream begins."""
    work = f"live/{secrets.token_hex(16)}"
    return AuditEvent(event=EventKind.LIVE_BEGUN, work=work, actor_id=actor.actor_id, details={"method": actor.method})
