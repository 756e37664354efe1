"""`dubstage dub`: new speech for a video."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore, check_enrolled_for
from gateway.cli.app import app, run_async
from gateway.cli.console import StepProgress, err, out, say_warning
from gateway.consent import Consent, consent_line, read_consent
from gateway.methods import DEFAULT_METHOD, combined
from gateway.pipeline.dub import DubJob, DubOutcome
from gateway.pipeline.dub_request import DubRequest, check_request
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import parse_face
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stages
from services.common.artefacts import ArtefactStore
from services.common.errors import ConsentMissing
from services.common.settings import load_settings


@app.command("dub")
def dub(
    video: Annotated[Path, typer.Argument(help="footage of the person; for headpose a still picture does")],
    output: Annotated[Path, typer.Option("-o", "--output", help="film to write; its suffix chooses the container")],
    audio: Annotated[Path | None, typer.Option(help="new speech; without it, the footage's own")] = None,
    method: Annotated[str | None, typer.Option(help="how; without it, as the actor was enrolled for, or ugc")] = None,
    motion: Annotated[str | None, typer.Option(help="another method's motion predictor")] = None,
    renderer: Annotated[str | None, typer.Option(help="another method's renderer")] = None,
    actor: Annotated[str | None, typer.Option(help="an actor enrolled before; without it, learned from this footage")] = None,
    face: Annotated[str, typer.Option(help="largest, speaker, a face id, or X,Y in the first frame")] = "largest",
    retime: Annotated[
        bool, typer.Option("--retime", help="as long as the speech, the head moving while somebody speaks; for methods in place")
    ] = False,
    keep_audio: Annotated[bool, typer.Option("--keep-audio", help="leave the footage's sound in the film")] = False,
    stages: Annotated[str | None, typer.Option(help="host of running stages; without it, all in this process")] = None,
    codec: Annotated[str | None, typer.Option(help="video codec; ffv1 is lossless")] = None,
    report: Annotated[Path | None, typer.Option(help="folder for an HTML report")] = None,
    consent: Annotated[Path | None, typer.Option(help="JSON file with the person's consent record")] = None,
    personalize: Annotated[bool, typer.Option(help="adapt the networks to the person first")] = True,
    seed: Annotated[int, typer.Option(help="of the adaptation")] = 0,
) -> None:
    """Dub VIDEO to new speech and write the film."""
    settings = load_settings(GatewaySettings, stages_host=stages)
    record = read_consent(consent) if consent is not None else None
    request = DubRequest(
        footage=video,
        speech=audio,
        output=output,
        method=combined(method or DEFAULT_METHOD, motion, renderer),
        face=parse_face(face),
        consent=record,
        retime=retime,
        keep_audio=keep_audio,
        codec=codec,
        enrol=EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize, seed=seed),
        threads=settings.compute_threads,
    )
    chosen = None if method is None and motion is None and renderer is None else request.method
    run_async(_dub(settings, request, actor, chosen, report))


async def _dub(
    settings: GatewaySettings, request: DubRequest, actor_id: str | None, method: str | None, report: Path | None
) -> None:
    with ActorStore(settings) as actors:
        if actor_id is not None:
            actor = actors.get(actor_id)
            check_enrolled_for(actor, method or actor.method)
            request = replace(request, method=actor.method, actor=actor.enrolled, consent=request.consent or actor.consent)
        await _dub_with(actors, settings, request, actor_id, report)


async def _dub_with(
    actors: ActorStore, settings: GatewaySettings, request: DubRequest, actor_id: str | None, report: Path | None
) -> None:
    if request.consent is None and settings.require_consent:
        raise ConsentMissing(
            "this installation requires a consent record: give one with --consent FILE, or an actor that has one",
            subject=actor_id or str(request.footage),
        )
    await asyncio.to_thread(check_request, request)
    async with open_stages(settings) as stages:
        store = ArtefactStore(settings.artefacts_url)
        job = DubJob(request, stages, store, settings.data_dir / "jobs", JobLedger(actors, actor_id or ""))
        with StepProgress() as progress:
            outcome = await job.run(progress)
        if report is not None:
            from gateway.reports.from_outcome import write_report

            await write_report(request, outcome, job, stages, store, report)
        job.discard()
    _tell(request, outcome, request.consent, report)


def _tell(request: DubRequest, outcome: DubOutcome, consent: Consent | None, report: Path | None) -> None:
    for warning in outcome.warnings:
        say_warning(warning)
    counts = outcome.plan.counts()
    dubbed = int(outcome.plan.rendered().sum())
    frames = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    err.print(f"{dubbed} of {outcome.plan.num_frames} frames dubbed ({frames})")
    if outcome.actor is not None and outcome.actor.lag_frames is not None:
        err.print(f"sound of the footage comes {outcome.actor.lag_frames:+d} frames of 40 ms after its picture")
    if outcome.windows_reused:
        err.print(f"{outcome.windows_reused} windows taken from an earlier run, {outcome.windows_computed} computed")
    for dropped in outcome.written.dropped:
        say_warning(dropped)
    err.print(consent_line(consent))
    out.print(str(request.output))
    if report is not None:
        out.print(str(report / "index.html"))
