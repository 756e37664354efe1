"""A dub request, completed with the stored actor and checked before any work."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.actors.stored import check_enrolled_for
from gateway.actors.workplace import Workplace
from gateway.pipeline.dub_files import check_request
from gateway.pipeline.dub_request import DubRequest


async def prepared(request: DubRequest, place: Workplace, actor_id: str | None, method: str | None) -> DubRequest:
    """Return the request with the method, the enrolment and what the store says of the actor.

    Args:
        request: the dub request as its caller wrote it, without the actor.
        place: the open stores.
        actor_id: actor to dub; None: the dub learns the person from the footage.
        method: method that the caller names; None: the method that the actor was enrolled for.

    Raises:
        ActorNotReady: there is no such actor.
        ConsentRefused: a consent record does not allow the dub, or is missing and the installation requires one.
        InvalidRequest: the actor was enrolled for another method, or the request cannot be met.
    """
    if actor_id is not None:
        actor = place.actors.get(actor_id)
        check_enrolled_for(actor, method or actor.method)
        request = replace(request, method=actor.method, actor=actor.enrolled, own=actor.record)
    request = await asyncio.to_thread(
        place.actors.consents.checked_dub,
        request,
        subject=actor_id or str(request.footage),
        reference=str(request.reference),
    )
    await asyncio.to_thread(check_request, request)
    return request
