"""`dubstage dub`: new speech for a video."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore, check_enrolled_for
from gateway.actors.watch import dub_unless_erased
from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import say, say_result, say_warning
from gateway.cli.progress import StepProgress
from gateway.consent import Consent, consent_line, read_consent
from gateway.housekeeping.cleaning import expire
from gateway.housekeeping.jobs_folder import open_jobs_folder
from gateway.media.encoders import CODECS
from gateway.methods import DEFAULT_METHOD, combined
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest, check_request
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import parse_face
from gateway.pipeline.outcome import DubOutcome
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages
from services.common.artefacts import ArtefactStore
from services.common.errors import ConsentMissing, DubstageError, InvalidRequest
from services.common.settings import load_settings


@app.command("dub")
def dub(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="Footage of the person; for the method headpose also a picture.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="Film to write. Its ending (.mp4, .mov, ...) chooses the container."),
    ],
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="New speech: a sound file. Default: the sound of the footage.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar=options.METHOD_VALUES,
            help="Method to dub with. Default: the method that the actor was enrolled for, otherwise ugc.",
        ),
    ] = None,
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    actor: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Actor that was enrolled with `dubstage actor create`. Default: learn the person from VIDEO."
        ),
    ] = None,
    face: options.Face = "largest",
    retime: Annotated[
        bool,
        typer.Option(
            "--retime",
            help="Make the film as long as the speech, the head moving while the person speaks. headpose does so by itself.",
        ),
    ] = False,
    keep_audio: Annotated[bool, typer.Option("--keep-audio", help="Keep the sound of the footage in the film.")] = False,
    stages: options.Stages = None,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(CODECS), help="Video codec; ffv1 is lossless. Default: chosen by the container and the footage."
        ),
    ] = None,
    report: options.Report = None,
    consent: options.ConsentFile = None,
    personalize: options.Personalize = True,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Dub VIDEO to new speech and write the film."""
    settings = load_settings(GatewaySettings, stages_host=stages)
    if codec is not None and codec not in CODECS:
        raise InvalidRequest(f"no codec {codec!r}; there are: {', '.join(CODECS)}", field="codec")
    request = DubRequest(
        footage=video,
        speech=audio,
        output=output,
        method=combined(method or DEFAULT_METHOD, motion, renderer),
        face=parse_face(face),
        consent=read_consent(consent) if consent is not None else None,
        retime=retime,
        keep_audio=keep_audio,
        codec=codec,
        enrol=EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize, seed=seed),
        threads=settings.compute_threads,
        overwrite=overwrite,
    )
    if consent is not None:
        _refuse_input(output, consent)
    if report is not None:
        check_report_folder(report, [file for file in (video, audio, consent, output) if file is not None])
    chosen = None if method is None and motion is None and renderer is None else request.method
    run_async(_dub(settings, request, actor, chosen, report))


def _refuse_input(output: Path, file: Path) -> None:
    """Raise InvalidRequest where the output is the consent file, also through links."""
    # By os.path: a name that cannot be is no error here, but one that is told where the place is checked.
    if os.path.exists(output) and os.path.samefile(output, file):
        raise InvalidRequest(f"{output} is the consent record itself; give another name to the output", field="output")


async def _dub(
    settings: GatewaySettings, request: DubRequest, actor_id: str | None, method: str | None, report: Path | None
) -> None:
    jobs = open_jobs_folder(settings.data_dir)
    with ActorStore(settings) as actors:
        if actor_id is not None:
            actor = actors.get(actor_id)
            check_enrolled_for(actor, method or actor.method)
            request = replace(request, method=actor.method, actor=actor.enrolled, consent=request.consent or actor.consent)
        if request.consent is None and settings.require_consent:
            raise ConsentMissing(
                "this installation requires a consent record: give one with --consent FILE, or an actor that has one",
                subject=actor_id or str(request.footage),
            )
        await asyncio.to_thread(check_request, request)
        with StepProgress() as progress:
            progress.begin("starting the stages")
            async with open_stages(settings) as stages:
                store = ArtefactStore(settings.artefacts_url)
                ledger = JobLedger(actors, actor_id or "")
                job = DubJob(request, stages, store, jobs, ledger, max_bytes=settings.max_job_bytes)
                outcome = await dub_unless_erased(job, ledger, progress)
                try:
                    if report is not None:
                        progress.begin("writing the report")
                        await _write_report(request, outcome, job, stages, store, report)
                finally:
                    # The film is there: whatever becomes of its report, there is nothing to go on with.
                    job.discard()
                await asyncio.to_thread(expire, settings, actors, store, jobs)
    _tell(request, outcome, request.consent, report)


async def _write_report(
    request: DubRequest, outcome: DubOutcome, job: DubJob, stages: Stages, store: ArtefactStore, report: Path
) -> None:
    from gateway.reports.from_outcome import write_report

    try:
        await write_report(request, outcome, job, stages, store, report)
    except DubstageError:
        say(f"the film is written: {request.output}; its report is not")
        raise


def _tell(request: DubRequest, outcome: DubOutcome, consent: Consent | None, report: Path | None) -> None:
    for warning in outcome.warnings:
        say_warning(warning)
    counts = outcome.plan.counts()
    dubbed = int(outcome.plan.rendered().sum())
    frames = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    say(f"{dubbed} of {outcome.plan.num_frames} frames dubbed ({frames})")
    if outcome.actor is not None and outcome.actor.lag_frames is not None:
        say(f"sound of the footage comes {outcome.actor.lag_frames:+d} frames of 40 ms after its picture")
    if outcome.windows_reused:
        say(f"{outcome.windows_reused} windows taken from an earlier run, {outcome.windows_computed} computed")
    for dropped in outcome.written.dropped:
        say_warning(dropped)
    say(consent_line(consent))
    say_result(str(request.output))
    if report is not None:
        say_result(str(report / "index.html"))
