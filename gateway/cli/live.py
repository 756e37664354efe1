"""`dubstage live`: stream a speech file through the live pipeline, as if the speech were spoken now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.app import app, run_async
from services.common.errors import InvalidRequestError
from services.common.methods import LIVE_LOOK_AHEAD, LIVE_LOOK_AHEAD_CHOICES


@app.command("live")
def live(
    actor: Annotated[str, typer.Argument(metavar="ACTOR", help="Actor to show, enrolled with `dubstage actor create`.")],
    audio: Annotated[Path, typer.Option(metavar="FILE", help="Sound file with the speech, at most ten minutes long.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Video to write. Without it, give --show-latency."),
    ] = None,
    show_latency: Annotated[
        bool,
        typer.Option(
            "--show-latency", help="Print the latency of each frame: the time from its sound to the frame, in milliseconds."
        ),
    ] = False,
    gateway: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Running gateway to use. Default: run the gateway in this process."),
    ] = None,
    expressiveness: options.Expressiveness = 1.0,
    label: options.Label = "",
    label_position: options.LabelPosition = "",
    project: options.Project = "",
    language: options.Language = "",
    stages: options.Stages = None,
    device: options.Device = None,
    look_ahead: Annotated[
        int | None,
        typer.Option(
            "--look-ahead",
            min=min(LIVE_LOOK_AHEAD_CHOICES),
            max=max(LIVE_LOOK_AHEAD_CHOICES),
            metavar="FRAMES",
            help="Frames of 40 ms after a frame whose speech the mouth waits for. More frames give better mouths, and each of them "
            f"delays the stream by 40 ms. Default: {LIVE_LOOK_AHEAD}. Only methods with this choice take the option.",
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Send the speech as fast as the pipeline accepts the speech. Default: send it in real time."),
    ] = False,
    overwrite: options.Overwrite = False,
    _: options.AsJson = False,
) -> None:
    """Stream a speech file through the live pipeline in real time and print the latency of the first frame."""
    from gateway.cli.live_run import LiveRequest, LiveVideo, run_live
    from gateway.live.recording import check_recording
    from gateway.live.session import LiveMouth
    from gateway.media.label import label_of

    settings = options.gateway_settings(stages, device)
    if gateway is not None and device is not None:
        raise InvalidRequestError("--device is for stages of this command: leave it out with --gateway", field="device")
    if output is None and not show_latency:
        raise InvalidRequestError("there is nothing to do: give --output FILE or --show-latency", field="output")
    if gateway is not None and (":" not in gateway or not gateway.isprintable()):
        raise InvalidRequestError(f"--gateway takes HOST:PORT; it was given {gateway[:80]!r}", field="gateway")
    if output is not None:
        check_recording(output, audio, overwrite=overwrite)
    request = LiveRequest(
        actor_id=actor,
        audio=audio,
        video=LiveVideo(output, audio, overwrite) if output is not None else None,
        show_latency=show_latency,
        gateway=gateway,
        use=options.consent_use(project, language),
        mouth=LiveMouth(expressiveness=expressiveness, look_ahead_frames=look_ahead),
        label=label_of(label, label_position),
        fast=fast,
    )
    run_async(run_live(settings, request))
