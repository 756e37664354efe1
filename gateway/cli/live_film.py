"""The film that `dubstage live` writes, with its comment and its manifest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from dubstage.client import rpcs
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.stored import StoredActor
from gateway.api.messages import consent_from
from gateway.live.live_claim import ShownActor, shown_actor
from gateway.live.measured import SpokenSpeech
from gateway.live.recording import Recording
from gateway.provenance.opening import open_sealer
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from services.common.server.client import ClientConfig, StageClient


@dataclass(frozen=True, slots=True)
class LiveFilm:
    """Where the film of a stream belongs.

    Attributes:
        output: film to write.
        speech: file of the speech.
        overwrite: replace an existing file even if dubstage did not write the file.
    """

    output: Path
    speech: Path
    overwrite: bool

    async def of_stages(self, settings: GatewaySettings, sound: SpokenSpeech, actor: StoredActor, stages: Stages) -> Recording:
        """Return the film of an actor that the stages of this process show, or stages that this process calls.

        Raises:
            InvalidRequest, StorageRefused: as `of_gateway`.
            ModelNotFound: the stages do not have the actor's method.
            DubstageError: from the stages.
        """
        return await self._recording(settings, sound, await shown_actor(actor, stages))

    async def of_gateway(self, settings: GatewaySettings, sound: SpokenSpeech, actor_id: str, config: ClientConfig) -> Recording:
        """Return the film of an actor that a running gateway shows. The manifest names no models: the gateway tells none.

        Raises:
            InvalidRequest: the place cannot be written, or the certificate of the settings cannot be used.
            StorageRefused: the installation's own key cannot be made or read.
            DubstageError: from the gateway, or the gateway does not answer.
        """
        return await self._recording(settings, sound, await _actor_of_gateway(config, actor_id))

    async def _recording(self, settings: GatewaySettings, sound: SpokenSpeech, actor: ShownActor) -> Recording:
        """Return the film, which is not begun. This installation signs the film."""
        sealer = await asyncio.to_thread(open_sealer, settings)
        sealer.check_place(self.output, overwrite=self.overwrite)
        return Recording(
            self.output,
            self.speech,
            sound.samples,
            sound.sample_rate_hz,
            marking=actor.marking,
            overwrite=self.overwrite,
            seal_of=lambda frames: sealer.seal(actor.claim(self.speech, frames), self.output),
        )


async def _actor_of_gateway(config: ClientConfig, actor_id: str) -> ShownActor:
    rpc = rpcs.gateway.GET_ACTOR
    async with StageClient(config) as client:
        call = client.channel.unary_unary(rpc.path, **rpc.serialisers)
        found = (await client.unary(call, pb.GetActorRequest(actor_id=actor_id))).actor
    return ShownActor(found.method, (), consent_from(found.consent) if found.HasField("consent") else None)
