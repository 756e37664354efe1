"""The stores and stages of commands and workers, opened the same way by each, and requests that are completed with an actor.

Modules of dubs, stages and signatures of videos are imported in functions: commands that only read the stores start without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.actors.store import ActorStore
from gateway.actors.stored import check_enrolled_for
from gateway.settings import GatewaySettings
from services.common.store.artefacts import ArtefactStore

if TYPE_CHECKING:
    from gateway.dub.request import DubRequest
    from gateway.provenance.seal import Sealer
    from gateway.stages.interface import Stages


@dataclass(frozen=True, slots=True)
class Installation:
    """Open stores of a command or of a worker.

    Attributes:
        settings: settings of the process.
        actors: store of actors.
        artefacts: artefact store of the stages.
    """

    settings: GatewaySettings
    actors: ActorStore
    artefacts: ArtefactStore

    def sealer(self) -> Sealer:
        """Return what signs the videos of this installation (`open_sealer`). Blocks."""
        from gateway.provenance.installation import open_sealer

        return open_sealer(self.settings)

    def stages(self) -> AbstractAsyncContextManager[Stages]:
        """Return the context of the opened stages (`open_stages`)."""
        from gateway.stages.opening import open_stages

        return open_stages(self.settings)


@contextmanager
def open_installation(settings: GatewaySettings, *, claim_artefacts: bool = True) -> Iterator[Installation]:
    """Open the stores that the settings name, and close the database at the end.

    Args:
        settings: settings of the process.
        claim_artefacts: as for ActorStore.

    Raises:
        StorageRefusedError: the data folder, the database or the artefact store cannot be used, or the artefact store belongs to
            another database.
        BackendUnavailableError: the database or the artefact store does not answer.
    """
    with ActorStore(settings, claim_artefacts=claim_artefacts) as actors:
        yield Installation(settings, actors, ArtefactStore(settings.artefacts_url))


def scene_with_actors(request: DubRequest, actors: ActorStore, method: str | None) -> DubRequest:
    """Return a scene with the method, the enrolments and what the store says of the actors of its lines. Blocks.

    Args:
        request: the scene, whose lines name their actors by id.
        method: method that the caller names; None: the method that the first actor was enrolled for, otherwise the request's.

    Raises:
        ActorError: there is no such actor.
        ConsentRefusedError: a consent record does not allow a line, or is missing and the installation requires one.
        InvalidRequestError: an actor was enrolled for another method. The message names the line.
    """
    from gateway.dub.request import naming

    found = {actor_id: actors.get(actor_id) for actor_id in dict.fromkeys(line.actor_id for line in request.lines) if actor_id}
    wanted = method or next((actor.method for actor in found.values()), request.method)
    lines = []
    for line in request.lines:
        dub = replace(line.dub, method=wanted)
        if line.actor_id:
            actor = found[line.actor_id]
            with naming(line):
                check_enrolled_for(actor, wanted)
            dub = replace(dub, actor=actor.enrolled, actor_record=actor.record)
        dub = actors.consents.checked_dub(dub, subject=line.actor_id or line.name, reference="")
        lines.append(replace(line, dub=dub))
    return replace(request, method=wanted, lines=tuple(lines))


async def prepared_request(request: DubRequest, installation: Installation, actor_id: str | None, method: str | None) -> DubRequest:
    """Return the request with the method, the enrolment and what the store says of the actor.

    Args:
        request: the dub request as its caller wrote it, without the actor.
        installation: the open stores.
        actor_id: actor to dub; None: the dub learns the person from the footage.
        method: method that the caller names; None: the method that the actor was enrolled for.

    Raises:
        ActorError: there is no such actor.
        ConsentRefusedError: a consent record does not allow the dub, or is missing and the installation requires one.
        InvalidRequestError: the actor was enrolled for another method, or the request cannot be met.
    """
    from gateway.dub.request import check_request, check_scene

    if request.lines:
        check_scene(request, actor_id or "")
        request = await asyncio.to_thread(scene_with_actors, request, installation.actors, method)
        await asyncio.to_thread(check_request, request)
        return request
    if actor_id is not None:
        actor = installation.actors.get(actor_id)
        check_enrolled_for(actor, method or actor.method)
        request = replace(request, method=actor.method, actor=actor.enrolled, actor_record=actor.record)
    request = await asyncio.to_thread(
        installation.actors.consents.checked_dub,
        request,
        subject=actor_id or str(request.footage),
        reference=str(request.reference),
    )
    await asyncio.to_thread(check_request, request)
    return request
