"""Run of `dubstage live`: a speech file through the live pipeline, as if the speech was spoken now, and the frames as a video."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from dubstage.client import rpcs
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.actors.installation import open_installation
from gateway.actors.stored import StoredActor
from gateway.actors.watch import while_allowed
from gateway.api.resources import actor_name
from gateway.cli.console import say, say_json, say_result, say_warning, shown_path, wants_json
from gateway.consent.messages import consent_from
from gateway.consent.record import ConsentUse, consent_line
from gateway.live.client import PacedSpeech, remote_live_frames
from gateway.live.recording import (
    Recording,
    StreamedActor,
    disclosed_facts,
    stream_mark,
    streamed_actor,
)
from gateway.live.session import LiveFrame, LiveMouth
from gateway.live.streams import Disclosing, LiveStreams
from gateway.media.inspection import inspect_sound
from gateway.media.label import Label
from gateway.media.sound import SoundReader
from gateway.provenance.claim import Claim, SourceFile
from gateway.provenance.installation import open_sealer
from gateway.provenance.seal import Sealer, SignedDisclosure
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.methods import method_named
from services.common.server.client import ClientConfig, StageClient

LONGEST_SPEECH_SECONDS: Final = 600
MOST_CHANNELS: Final = 8
"""Most channels of a live stream."""


def read_speech(path: Path) -> tuple[Float32, int]:
    """Return the samples of a sound file, float32 [n, channels], and the samples per second and channel.

    Channels after the eighth are left out.

    Raises:
        InvalidRequestError: the file cannot be read, has no sound, or is longer than ten minutes.
    """
    inspect_sound(path)
    speech = SoundReader(path).speech()
    parts: list[Float32] = []
    count = 0
    for chunk in speech.chunks:
        parts.append(chunk)
        count += len(chunk)
        if count > LONGEST_SPEECH_SECONDS * speech.sample_rate_hz:
            raise InvalidRequestError(
                f"{path}: the speech is longer than {LONGEST_SPEECH_SECONDS // 60} minutes; cut it into parts", field="audio"
            )
    if not count:
        raise InvalidRequestError(f"{path}: the file has no sound", field="audio")
    samples = np.concatenate(parts)
    return np.ascontiguousarray(samples[:, :MOST_CHANNELS]), speech.sample_rate_hz


@dataclass(frozen=True, slots=True)
class LiveVideo:
    """Destination of the video of a stream.

    Attributes:
        output: file to write.
        speech: sound file with the speech, which the manifest names.
        overwrite: replace an existing file even if dubstage did not write the file.
    """

    output: Path
    speech: Path
    overwrite: bool

    async def of_stages(self, settings: GatewaySettings, sound: PacedSpeech, actor: StoredActor, stages: Stages) -> Recording:
        """Return the video of an actor whom the stages draw, in this process or called by this process.

        Raises:
            InvalidRequestError, StorageRefusedError: as `of_gateway`.
            ModelNotFoundError: the stages do not have the actor's method.
            DubstageError: from the stages.
        """
        sealer = await asyncio.to_thread(open_sealer, settings)
        shown = await streamed_actor(actor, stages, stream_mark(actor, sealer))
        return self._recording(sealer, sound, shown)

    async def of_gateway(self, settings: GatewaySettings, sound: PacedSpeech, actor_id: str, config: ClientConfig) -> Recording:
        """Return the video of an actor that a running gateway shows.

        The manifest names models and watermark as the gateway's disclosure record does.

        Raises:
            InvalidRequestError: the file cannot be written, or the certificate of the settings cannot be used.
            StorageRefusedError: the installation's own key cannot be made or read.
            DubstageError: from the gateway, or the gateway does not answer.
        """
        sealer = await asyncio.to_thread(open_sealer, settings)
        return self._recording(sealer, sound, await _actor_of_gateway(config, actor_id))

    def _recording(self, sealer: Sealer, sound: PacedSpeech, actor: StreamedActor) -> Recording:
        """Return the video, which is not begun. This installation signs the video."""
        sealer.check_sidecar_path(self.output, overwrite=self.overwrite)
        return Recording(
            self.output,
            self.speech,
            sound.samples,
            sound.sample_rate_hz,
            marking=actor.marking,
            overwrite=self.overwrite,
            seal_of=lambda frames, disclosure: sealer.seal(self._claim(actor, frames, disclosure), self.output),
        )

    def _claim(self, actor: StreamedActor, frames: int, disclosure: SignedDisclosure | None) -> Claim:
        """Return the claim of the manifest.

        Args:
            actor: the streamed actor.
            frames: number of frames of the video.
            disclosure: record of a gateway's stream; None: the claim follows from the actor.
        """
        facts = disclosed_facts(disclosure) if disclosure is not None else None
        if facts is not None:
            actor = replace(actor, method=facts.method, models=tuple(facts.models), job=facts.job, watermark=facts.watermark)
        return actor.claim(frames, (SourceFile("speech", self.speech),))


async def _actor_of_gateway(config: ClientConfig, actor_id: str) -> StreamedActor:
    async with StageClient(config) as client:
        actor = await client.unary(rpcs.gateway.GET_ACTOR, pb.GetActorRequest(name=actor_name(actor_id)))
    return StreamedActor(actor.method, (), consent_from(actor.consent) if actor.HasField("consent") else None)


@dataclass(frozen=True, slots=True)
class ShownStream:
    """Result of a stream.

    Attributes:
        latencies_s: time of each frame after its sound, seconds.
        warnings: sentences about the video.
    """

    latencies_s: Sequence[float]
    warnings: Sequence[str]


async def show_frames(
    frames: AsyncGenerator[LiveFrame, None], speech: PacedSpeech, recording: Recording | None, *, show_latency: bool
) -> ShownStream:
    """Take all frames of a stream, and print warnings and a summary of the latencies at the end.

    Args:
        frames: frames of the stream.
        speech: speech that the stream takes.
        recording: video to write the pictures to; None: no video is written.
        show_latency: whether the latency of each frame is printed.

    Raises:
        InvalidRequestError: the speech is shorter than one frame.
        DubstageError: from the stream.
    """
    latencies: list[float] = []
    async with aclosing(frames):
        with recording if recording is not None else nullcontext():
            async for frame in frames:
                latencies.append(speech.latency_s(frame.index))
                if show_latency:
                    say_result(f"frame {frame.index}: {latencies[-1] * 1000:.0f} ms after its sound")
                if recording is not None:
                    recording.disclosure = frame.disclosure or recording.disclosure
                    await asyncio.to_thread(recording.write, frame.picture, frame.colour)
    warnings = tuple(recording.warnings) if recording is not None else ()
    for warning in warnings:
        say_warning(warning)
    if not latencies:
        raise InvalidRequestError("--audio: the speech is shorter than one frame; give longer speech", field="audio")
    milliseconds = np.array(latencies) * 1000
    say(
        f"first frame {milliseconds[0]:.0f} ms after its sound; median {np.median(milliseconds):.0f} ms, "
        f"95 % within {np.percentile(milliseconds, 95):.0f} ms, {len(latencies)} frames"
    )
    return ShownStream(latencies, warnings)


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRequest:
    """Request of `dubstage live`.

    Attributes:
        actor_id: actor to show.
        audio: sound file with the speech.
        video: video to write; None: no video is written.
        show_latency: whether the latency of each frame is printed.
        gateway: HOST:PORT of a running gateway; None: the gateway runs in this process.
        use: project and language of the stream.
        mouth: how the mouth is predicted.
        label: visible label of every frame; None: there is none.
        fast: whether the speech is sent as fast as the pipeline accepts the speech. False: at the pace of speaking.
    """

    actor_id: str
    audio: Path
    video: LiveVideo | None
    show_latency: bool
    gateway: str | None
    use: ConsentUse
    mouth: LiveMouth
    label: Label | None
    fast: bool


async def run_live(settings: GatewaySettings, request: LiveRequest) -> None:
    """Stream a speech file, record the frames, and print their latencies.

    Args:
        request: what is streamed.

    Raises:
        DubstageError: the request was refused, or the stream failed.
    """
    samples, rate = await asyncio.to_thread(read_speech, request.audio)
    speech = PacedSpeech(samples, rate, in_real_time=not request.fast)
    if request.gateway is not None:
        shown = await _show_remote(settings, request, request.gateway, speech)
    else:
        shown = await _show_local(settings, request, speech)
    if wants_json():
        output = shown_path(request.video.output) if request.video is not None else ""
        latencies = [round(1000 * each, 3) for each in shown.latencies_s]
        say_json({"outputUri": output, "numFrames": len(latencies), "latenciesMs": latencies, "warnings": [*shown.warnings]})


async def _show_remote(settings: GatewaySettings, request: LiveRequest, target: str, speech: PacedSpeech) -> ShownStream:
    config = replace(settings.client_config("audio"), stage="gateway", target=target)
    recording = None
    if request.video is not None:
        recording = await request.video.of_gateway(settings, speech, request.actor_id, config)
    frames = remote_live_frames(
        config,
        request.actor_id,
        speech.chunks(),
        sample_rate_hz=speech.sample_rate_hz,
        channels=speech.samples.shape[1],
        use=request.use,
        mouth=request.mouth,
        label=request.label,
        disclose=request.video is not None,
    )
    return await show_frames(frames, speech, recording, show_latency=request.show_latency)


async def _show_local(settings: GatewaySettings, request: LiveRequest, speech: PacedSpeech) -> ShownStream:
    with open_installation(settings) as installation:
        actor = installation.actors.get(request.actor_id)
        consent = actor.consent
        # Before the stages are opened, which takes seconds.
        installation.actors.consents.check_enrolled(consent, None, request.use, request.actor_id, actor_id=request.actor_id)
        method_named(actor.method).streamed.motion.check_look_ahead(request.mouth.look_ahead_frames, "--look-ahead")
        # The first frame of live speech must not wait for networks.
        async with installation.stages(warm_up=True) as stages:
            recording = None
            if request.video is not None:
                recording = await request.video.of_stages(settings, speech, actor, stages)
            streams = LiveStreams(
                lambda: stages,
                installation.actors,
                installation.artefacts,
                max_message_bytes=settings.max_message_bytes,
                sealer=await asyncio.to_thread(installation.sealer),
            )
            frames = streams.frames(
                request.actor_id,
                speech.chunks(),
                sample_rate_hz=speech.sample_rate_hz,
                channels=speech.samples.shape[1],
                use=request.use,
                mouth=request.mouth,
                disclosing=Disclosing(request.label),
            )
            showing = show_frames(frames, speech, recording, show_latency=request.show_latency)
            shown = await while_allowed(lambda: installation.actors.erasures.check(request.actor_id), showing)
    say(consent_line(consent))
    return shown
