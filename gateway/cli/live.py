"""`dubstage live`: a speech file through the live pipeline, as if it were spoken now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from gateway.actors.store import ActorStore
from gateway.actors.watch import unless_erased
from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import say, say_result
from gateway.consent import consent_line
from gateway.live.measured import SpokenSpeech
from gateway.live.recording import Recording, check_recording
from gateway.live.remote import remote_live_frames
from gateway.live.session import LiveFrame
from gateway.live.streams import LiveStreams
from gateway.media.inspection import inspect_sound
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stages
from services.common.artefacts import ArtefactStore
from services.common.errors import InvalidRequest
from services.common.settings import load_settings

LONGEST_SPEECH_SECONDS = 600
SYNTHETIC = "The mouth in this film is synthetic (made with dubstage)"


@app.command("live")
def live(
    actor: Annotated[str, typer.Argument(metavar="ACTOR", help="Actor that was enrolled with `dubstage actor create`.")],
    audio: Annotated[Path, typer.Option(metavar="FILE", help="Speech: a sound file of at most ten minutes.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Film to write. Default: the frames are only timed.")
    ] = None,
    show_latency: Annotated[
        bool, typer.Option("--show-latency", help="Print for each frame how long after its sound the frame came.")
    ] = False,
    gateway: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Gateway that runs already. Default: do the gateway's work in this process."),
    ] = None,
    stages: options.Stages = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Send the speech as fast as it is taken, instead of at the pace of speaking.")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Stream a speech file through the live pipeline in real time; print the latency of the first frame."""
    settings = load_settings(GatewaySettings, stages_host=stages)
    if output is None and not show_latency:
        raise InvalidRequest("nothing to do: give --output FILE, or --show-latency", field="output")
    if gateway is not None and (":" not in gateway or not gateway.isprintable()):
        raise InvalidRequest(f"--gateway takes HOST:PORT, not {gateway[:80]!r}", field="gateway")
    if output is not None:
        check_recording(output, audio, overwrite=overwrite)
    run_async(_live(settings, actor, audio, output, show_latency=show_latency, gateway=gateway, fast=fast, overwrite=overwrite))


async def _live(
    settings: GatewaySettings,
    actor_id: str,
    audio: Path,
    output: Path | None,
    *,
    show_latency: bool,
    gateway: str | None,
    fast: bool,
    overwrite: bool,
) -> None:
    samples, rate = await asyncio.to_thread(_read_speech, audio)
    speech = SpokenSpeech(samples, rate, in_real_time=not fast)
    if gateway is not None:
        config = replace(settings.client_config("audio"), stage="gateway", target=gateway)
        frames = remote_live_frames(config, actor_id, speech.chunks(), sample_rate_hz=rate, channels=samples.shape[1])
        recording = Recording(output, audio, samples, rate, marking=SYNTHETIC, overwrite=overwrite) if output is not None else None
        await _show(frames, speech, recording, show_latency=show_latency)
        return
    with ActorStore(settings) as actors:
        consent = actors.get(actor_id).consent
        marking = f"{SYNTHETIC}; {consent_line(consent)}"
        recording = Recording(output, audio, samples, rate, marking=marking, overwrite=overwrite) if output is not None else None
        async with open_stages(settings) as opened:
            streams = LiveStreams(
                lambda: opened,
                actors,
                ArtefactStore(settings.artefacts_url),
                max_streams=1,
                require_consent=settings.require_consent,
                max_message_bytes=settings.max_message_bytes,
            )
            frames = streams.frames(actor_id, speech.chunks(), sample_rate_hz=rate, channels=samples.shape[1])
            showing = _show(frames, speech, recording, show_latency=show_latency)
            await unless_erased(lambda: actors.erasures.check(actor_id), showing)
    say(consent_line(consent))


async def _show(
    frames: AsyncGenerator[LiveFrame, None], speech: SpokenSpeech, recording: Recording | None, *, show_latency: bool
) -> None:
    late: list[float] = []
    async with aclosing(frames):
        with recording if recording is not None else nullcontext():
            async for frame in frames:
                late.append(speech.latency_s(frame.index))
                if show_latency:
                    say_result(f"frame {frame.index}: {late[-1] * 1000:.0f} ms after its sound")
                if recording is not None:
                    await asyncio.to_thread(recording.write, frame.picture)
    if not late:
        raise InvalidRequest("the speech is too short for a single frame", field="audio")
    milliseconds = np.array(late) * 1000
    say(
        f"first frame {milliseconds[0]:.0f} ms after its sound; median {np.median(milliseconds):.0f} ms, "
        f"95 % within {np.percentile(milliseconds, 95):.0f} ms, {len(late)} frames"
    )


def _read_speech(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    inspect_sound(path)
    speech = SoundReader(path).speech()
    parts: list[npt.NDArray[np.float32]] = []
    count = 0
    for chunk in speech.chunks:
        parts.append(chunk)
        count += len(chunk)
        if count > LONGEST_SPEECH_SECONDS * speech.sample_rate_hz:
            raise InvalidRequest(f"{path}: longer than {LONGEST_SPEECH_SECONDS // 60} minutes: cut it", field="audio")
    if not count:
        raise InvalidRequest(f"{path}: no sound in it", field="audio")
    samples = np.concatenate(parts)
    # Contracts of the audio stage: at most eight channels.
    return np.ascontiguousarray(samples[:, :8]), speech.sample_rate_hz
