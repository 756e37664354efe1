"""A live stream of the command line, in this process or by a running gateway."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.actors.installation import open_installation
from gateway.actors.watch import while_allowed
from gateway.cli.console import say
from gateway.cli.live_film import LiveFilm
from gateway.cli.live_show import show_frames
from gateway.cli.speech_file import read_speech
from gateway.consent.record import ConsentUse, consent_line
from gateway.live.measured import SpokenSpeech
from gateway.live.remote import remote_live_frames
from gateway.live.streams import LiveStreams
from gateway.settings import GatewaySettings


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRequest:
    """What `dubstage live` streams.

    Attributes:
        actor_id: actor to show.
        audio: sound file with the speech.
        film: film to write; None: no film is written.
        show_latency: whether the latency of each frame is printed.
        gateway: HOST:PORT of a running gateway; None: the gateway runs in this process.
        use: project and language of the stream.
        expressiveness: factor of the mouth's movement.
        fast: whether the speech is sent as fast as the pipeline accepts the speech. False: at the pace of speaking.
    """

    actor_id: str
    audio: Path
    film: LiveFilm | None
    show_latency: bool
    gateway: str | None
    use: ConsentUse
    expressiveness: float
    fast: bool


async def run_live(settings: GatewaySettings, request: LiveRequest) -> None:
    """Stream a speech file, record the frames, and print their latencies.

    Args:
        settings: settings of the command.
        request: what is streamed.

    Raises:
        DubstageError: the request was refused, or the stream failed.
    """
    samples, rate = await asyncio.to_thread(read_speech, request.audio)
    speech = SpokenSpeech(samples, rate, in_real_time=not request.fast)
    if request.gateway is not None:
        await _show_remote(settings, request, request.gateway, speech)
    else:
        await _show_local(settings, request, speech)


async def _show_remote(settings: GatewaySettings, request: LiveRequest, target: str, speech: SpokenSpeech) -> None:
    config = replace(settings.client_config("audio"), stage="gateway", target=target)
    recording = None
    if request.film is not None:
        recording = await request.film.of_gateway(settings, speech, request.actor_id, config)
    frames = remote_live_frames(
        config,
        request.actor_id,
        speech.chunks(),
        sample_rate_hz=speech.sample_rate_hz,
        channels=speech.samples.shape[1],
        use=request.use,
        expressiveness=request.expressiveness,
    )
    await show_frames(frames, speech, recording, show_latency=request.show_latency)


async def _show_local(settings: GatewaySettings, request: LiveRequest, speech: SpokenSpeech) -> None:
    with open_installation(settings) as place:
        actor = place.actors.get(request.actor_id)
        consent = actor.consent
        # Before the stages are opened, which takes seconds.
        place.actors.consents.check_enrolled(consent, None, request.use, request.actor_id, actor_id=request.actor_id)
        async with place.stages() as stages:
            recording = None
            if request.film is not None:
                recording = await request.film.of_stages(settings, speech, actor, stages)
            streams = LiveStreams(
                lambda: stages,
                place.actors,
                place.artefacts,
                max_message_bytes=settings.max_message_bytes,
            )
            frames = streams.frames(
                request.actor_id,
                speech.chunks(),
                sample_rate_hz=speech.sample_rate_hz,
                channels=speech.samples.shape[1],
                use=request.use,
                expressiveness=request.expressiveness,
            )
            showing = show_frames(frames, speech, recording, show_latency=request.show_latency)
            await while_allowed(lambda: place.actors.erasures.check(request.actor_id), showing)
    say(consent_line(consent))
