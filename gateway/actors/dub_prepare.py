"""A dub request, completed with the stored actor and checked before any work."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.actors.stored import check_enrolled_for
from gateway.actors.workplace import Workplace
from gateway.consent import reference_refusal
from gateway.pipeline.dub_files import check_request
from gateway.pipeline.dub_request import DubRequest
from services.common.errors import ConsentMissing


async def prepared(request: DubRequest, place: Workplace, actor_id: str | None, method: str | None) -> DubRequest:
    """Return the request with the method, the enrolment and the consent record of the actor.

    Args:
        request: the dub request as its caller wrote it, without the actor.
        place: the open stores.
        actor_id: actor to dub; None: the dub learns the person from the footage.
        method: method that the caller names; None: the method that the actor was enrolled for.

    Raises:
        ActorNotReady: there is no such actor.
        ConsentMissing: the installation requires a consent record, and there is none of the person or of the reference.
        InvalidRequest: the actor was enrolled for another method, or the request cannot be met.
    """
    if actor_id is not None:
        actor = place.actors.get(actor_id)
        check_enrolled_for(actor, method or actor.method)
        request = replace(request, method=actor.method, actor=actor.enrolled, consent=request.consent or actor.consent)
    if request.consent is None and place.settings.require_consent:
        raise ConsentMissing(
            "this installation requires a consent record: give one with --consent FILE, or use an actor that has one",
            subject=actor_id or str(request.footage),
        )
    if request.reference is not None and request.reference_consent is None and place.settings.require_consent:
        raise reference_refusal(str(request.reference))
    await asyncio.to_thread(check_request, request)
    return request
