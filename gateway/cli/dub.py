"""`dubstage dub`: give a video new speech."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gateway.actors.installation import open_installation, prepared_request
from gateway.actors.ledger import JobLedger
from gateway.actors.watch import dub_while_allowed
from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import printable, say, say_error, say_result, say_warning
from gateway.cli.progress import StepProgress
from gateway.cli.values import sound_against_picture
from gateway.dub.face_choice import parse_face
from gateway.dub.job import DubJob
from gateway.dub.lines import lines_of, read_lines
from gateway.dub.outcome import DubOutcome
from gateway.dub.request import EXPRESSIONS, DubRequest, consents, expression_named, refuse_input
from gateway.dub.workspace import Workspace
from gateway.housekeeping import expire, open_jobs_folder
from gateway.media.encoders import CODECS
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from services.common.errors import UNDUBBED_EXIT_CODE, DubstageError, InvalidRequestError
from services.common.methods import DEFAULT_METHOD, combined
from services.common.store.artefacts import ArtefactStore


async def save_report(
    request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages, artefacts: ArtefactStore, folder: Path
) -> None:
    """Write the report of a dub to a folder. If that fails, print that the video was written nevertheless.

    Args:
        workspace: the open folder of the job, which has the records.

    Raises:
        DubstageError: the report cannot be written.
    """
    from gateway.reports.dub_report import write_outcome_report

    try:
        await write_outcome_report(request, outcome, workspace, stages, artefacts, folder)
    except DubstageError:
        say(f"the video was written to {request.output}, but the report was not written")
        raise


def show_outcome(request: DubRequest, outcome: DubOutcome, report: Path | None) -> None:
    """Print warnings, counts of frames and the consent record to stderr, and the paths of video and report to stdout.

    Raises:
        typer.Exit: no frame is dubbed, so that the command ends with an exit code of its own.
    """
    for warning in outcome.warnings:
        say_warning(warning)
    for part in outcome.parts:
        if part.name:
            said = f"{part.num_dubbed} of {len(part.frames)} frames dubbed, from frame {part.frames.start} on"
            say(f"{part.name}: face {part.face_id}, {part.why}: {said}" if part.face_id is not None else f"{part.name}: {part.why}")
        elif part.face_id is not None:
            say(f"face {part.face_id} is dubbed: {part.why}")
    counts = outcome.plan.counts()
    dubbed = int(outcome.plan.rendered().sum())
    frames = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    say(f"{dubbed} of {outcome.plan.num_frames} frames dubbed ({frames})")
    if outcome.actor is not None and outcome.actor.lag_frames and not request.lines:
        say(sound_against_picture(outcome.actor.lag_frames))
    if outcome.windows_reused:
        say(f"{outcome.windows_reused} windows taken from an earlier run, {outcome.windows_computed} windows computed")
    for dropped in outcome.written.dropped:
        say_warning(dropped)
    say(consents(request))
    say_result(str(request.output))
    if report is not None:
        say_result(str(report / "index.html"))
    if outcome.undubbed:
        say_error(outcome.undubbed)
        raise typer.Exit(UNDUBBED_EXIT_CODE)


async def run_dub(
    settings: GatewaySettings, request: DubRequest, actor_id: str | None, method: str | None, report: Path | None
) -> None:
    """Dub the footage, write the report, and print the result.

    Args:
        request: the dub request of the command line.
        actor_id: actor to dub; None: the dub learns the person from the footage.
        method: method that the command line names; None: the method that the actor was enrolled for.
        report: folder of the report; None: no report is written.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    jobs = open_jobs_folder(settings.data_dir)
    with open_installation(settings) as place:
        request = await prepared_request(request, place, actor_id, method)
        sealer = await asyncio.to_thread(place.sealer)
        with StepProgress() as progress:
            progress.begin("starting the stages")
            async with place.stages() as stages:
                first, *more = request.actor_ids or ("",)
                ledger = JobLedger(place.actors, first, more_actors=more, consents=request.consents)
                job = DubJob(request, stages, place.artefacts, jobs, ledger, max_bytes=settings.max_job_bytes, sealer=sealer)
                with job:
                    async with ledger.recorded(request.method) as record:
                        outcome = await dub_while_allowed(job, ledger.check, progress)
                        await record.video(request.output, outcome.watermark)
                    try:
                        if report is not None:
                            progress.begin("writing the report")
                            await save_report(request, outcome, job.workspace, stages, place.artefacts, report)
                    finally:
                        # The video is finished, so the job folder is not needed again, even if the report fails. The folder of a
                        # scene stays until it expires, so that a line can be changed.
                        if not request.lines:
                            job.discard()
                # The video is done, whatever becomes of old jobs. The next dub tries again.
                with suppress(DubstageError, OSError):
                    await asyncio.to_thread(expire, settings, place.actors, place.artefacts, jobs)
    show_outcome(request, outcome, report)


class _DubCommand(TyperCommand):
    """Command that names `--audio` to a user who gives the speech as a second argument, before any other mistake is told."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, more, _ = self.make_parser(ctx).parse_args(args=list(args))
        if more and "--help" not in args:
            second = shlex.quote(printable(more[0]))
            ctx.fail(f"dub takes one video, and {second} is a second argument: give new speech as --audio {second}")
        return super().parse_args(ctx, args)


@app.command("dub", cls=_DubCommand)
def dub(
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO", help=f"Footage of the person. A single picture is enough for these methods: {options.STILL_METHODS}."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Video to write. The file extension (.mp4, .mov, ...) chooses the container."
        ),
    ],
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sound file with the new speech. Default: the sound of the footage.")
    ] = None,
    lines: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file with the lines of a scene. Each line has start, speech, and face, box or actor. Outside of the lines, "
            "the video keeps the pictures and the sound of the footage. A second call with one line changed renders that line "
            "alone.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar=options.METHOD_VALUES,
            help=f"Method to dub with. Default: the method that the actor was enrolled for, otherwise {DEFAULT_METHOD}.",
        ),
    ] = None,
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    actor: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Actor to dub, enrolled with `dubstage actor create`. Default: learn the person from VIDEO."
        ),
    ] = None,
    face: options.Face = "largest",
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Picture or video whose first usable face gives the video its lip colour, make-up and beard. These renderers take "
            f"one: {options.REFERENCE_RENDERERS}. Default: the person's own appearance.",
        ),
    ] = None,
    reference_consent: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with the consent record of the person in the reference."),
    ] = None,
    retime: Annotated[
        bool,
        typer.Option(
            "--retime",
            help="Make the video as long as the speech. The head moves while the person speaks. These methods always do so: "
            f"{options.TIMELINE_METHODS}.",
        ),
    ] = False,
    expression: Annotated[
        str,
        typer.Option(
            metavar="|".join(EXPRESSIONS),
            help="What becomes of the slow expression of the person in VIDEO, such as a smile: kept, or replaced by the expression "
            "that the method predicts. Default: keep; neutral with --retime and for these methods: "
            f"{options.TIMELINE_METHODS}.",
        ),
    ] = "",
    expressiveness: options.Expressiveness = 1.0,
    keep_audio: Annotated[bool, typer.Option("--keep-audio", help="Keep the sound of the footage in the video.")] = False,
    stages: options.Stages = None,
    codec: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(CODECS),
            help="Video codec. ffv1 is lossless. Default: a codec that suits the container and the footage.",
        ),
    ] = None,
    report: options.Report = None,
    consent: options.ConsentFile = None,
    project: options.Project = "",
    language: options.Language = "",
    personalize: options.Personalize = True,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Give VIDEO new speech and write the video."""
    settings = options.gateway_settings(stages)
    if codec is not None and codec not in CODECS:
        raise InvalidRequestError(f"--codec {codec!r} is unknown; there are: {', '.join(CODECS)}", field="codec")
    if reference_consent is not None and reference is None:
        raise InvalidRequestError("--reference-consent is given without --reference FILE", field="reference_consent")
    request = DubRequest(
        footage=video,
        speech=audio,
        output=output,
        method=combined(method or DEFAULT_METHOD, motion, renderer),
        face=parse_face(face),
        consent=options.consent_record(consent),
        reference=reference,
        reference_consent=options.consent_record(reference_consent),
        use=options.consent_use(project, language),
        retime=retime,
        expression=expression_named(expression),
        expressiveness=expressiveness,
        keep_audio=keep_audio,
        codec=codec,
        enrol=options.enrol_options(personalize=personalize, seed=seed),
        threads=settings.compute_threads,
        overwrite=overwrite,
    )
    if lines is not None:
        if report is not None:
            raise InvalidRequestError("--report is of a dub of one person: leave --report out with --lines", field="report")
        refuse_input(output, lines, "the file of the lines")
        request = replace(request, lines=lines_of(read_lines(lines), request, file=str(lines), folder=str(lines.parent)))
    records = [file for file in (consent, reference_consent) if file is not None]
    for record in records:
        refuse_input(output, record, "a consent record")
    if reference is not None:
        refuse_input(output, reference, "the reference")
    if report is not None:
        check_report_folder(report, [file for file in (video, audio, reference, *records, output) if file is not None])
    chosen = None if method is None and motion is None and renderer is None else request.method
    run_async(run_dub(settings, request, actor, chosen, report))
