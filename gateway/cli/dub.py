"""`dubstage dub`: give a video new speech.

Modules that dub are imported in functions: the help and a wrong option need none of them.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import printable, say, say_error, say_result, say_warning
from gateway.cli.progress import StepProgress
from gateway.cli.values import sound_against_picture
from gateway.dub.choices import EXPRESSIONS, FITS, expression_named, fit_named
from gateway.media.choices import (
    CODECS,
    DUCK_DB,
    LEAST_LEVEL_DB,
    MOST_DUCK_DB,
    MOST_LEVEL_DB,
    QUALITIES,
)
from services.common.errors import UNDUBBED_EXIT_CODE, DubstageError, InvalidRequestError
from services.common.methods import DEFAULT_METHOD, combined

if TYPE_CHECKING:
    from gateway.dub.outcome import DubOutcome
    from gateway.dub.request import DubRequest
    from gateway.media.sequences import SequenceDub, SequenceSettings
    from gateway.settings import GatewaySettings


def show_outcome(request: DubRequest, outcome: DubOutcome, output: Path, report: Path | None) -> None:
    """Print warnings, counts of frames and the consent record to stderr, and the paths of output and report to stdout.

    Args:
        request: the request that was dubbed, with the enrolled actors and their consent records.
        outcome: its result.
        output: the video, or the pattern of the frames, that the user asked for.
        report: folder of the report; None: there is none.

    Raises:
        typer.Exit: no frame is dubbed, so that the command ends with an exit code of its own.
    """
    from gateway.dub.request import consents

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
    say_result(str(output))
    if report is not None:
        say_result(str(report / "index.html"))
    if outcome.undubbed:
        say_error(outcome.undubbed)
        raise typer.Exit(UNDUBBED_EXIT_CODE)


async def run_dub(
    settings: GatewaySettings,
    request: DubRequest,
    actor_id: str | None,
    method: str | None,
    report: Path | None,
    sequence: SequenceSettings | None = None,
) -> None:
    """Dub the footage, write the report, and print the result.

    Args:
        request: the dub request of the command line.
        actor_id: actor to dub; None: the dub learns the person from the footage.
        method: method that the command line names; None: the method that the actor was enrolled for.
        report: folder of the report; None: no report is written.
        sequence: what the command line says about the image sequence that is dubbed; None: the footage is a video.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    from gateway.actors.installation import open_installation, prepared_request
    from gateway.api.in_process import finished_dub
    from gateway.api.progress import dub_steps
    from gateway.dub.sequences import frame_by_frame, is_signed, with_files
    from gateway.dub.workspace import ScratchFolders
    from gateway.media.sequences import SequenceDub
    from gateway.operations.step_paces import StepPaces

    asked = request
    with ExitStack() as stack:
        frames: SequenceDub | None = None
        if sequence is not None:
            scratch = stack.enter_context(closing(ScratchFolders(settings.data_dir)))
            folder = stack.enter_context(scratch.folder())
            spoken = [part.speech for part in request.parts if part.speech is not None]
            frames = await asyncio.to_thread(
                SequenceDub,
                request.footage,
                request.output,
                sequence,
                folder,
                inputs=spoken,
                overwrite=request.overwrite,
                is_signed=is_signed,
            )
            with StepProgress() as progress:
                await frame_by_frame(partial(frames.read, threads=request.threads), partial(progress, "read frames"))
            request = with_files(request, frames.video, frames.dubbed)
        installation = stack.enter_context(open_installation(settings))
        if frames is not None:
            (await asyncio.to_thread(installation.sealer)).check_place(frames.listing, overwrite=request.overwrite)
        request = await prepared_request(request, installation, actor_id, method)
        steps, paces = dub_steps(request, report=report is not None), StepPaces(settings.data_dir, request.method)
        with StepProgress(steps, paces=paces) as progress:
            progress.begin("starting the stages")
            async with finished_dub(request, installation, progress, progress.footage) as done:
                if frames is not None:
                    sealer = await asyncio.to_thread(installation.sealer)
                    seal = sealer.seal(done.outcome.claim, frames.listing) if done.outcome.claim is not None else None
                    await frame_by_frame(partial(frames.write, seal=seal), partial(progress, "write frames"))
                if report is not None:
                    from gateway.reports.dub_report import write_outcome_report

                    try:
                        await write_outcome_report(
                            request, done.outcome, done.workspace, done.stages, installation.artefacts, report, on_progress=progress
                        )
                    except DubstageError:
                        say(f"the video was written to {asked.output}, but the report was not written")
                        raise
    show_outcome(request, done.outcome, asked.output, report)


class _DubCommand(TyperCommand):
    """Command that names `--audio` to a user who gives the speech as a second argument, before any other mistake is reported."""

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
            metavar="VIDEO",
            help="Footage of the person: a video, or an image sequence such as shot.%04d.exr. A single picture is enough for these "
            f"methods: {options.STILL_METHODS}.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Video to write. The file extension (.mp4, .mov, ...) chooses the container. Of an image sequence: a pattern "
            "such as dub/shot.%04d.exr.",
        ),
    ],
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Sound file with the new speech. Default: the sound of the footage.")
    ] = None,
    audio_channel: Annotated[
        int | None,
        typer.Option(
            "--audio-channel",
            min=1,
            metavar="NUMBER",
            help="Channel of the speech that is the voice, from 1. Default: the mean of all channels; where channels are silent or "
            "cancel each other out, the channels with the voice.",
        ),
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
            help="Method to dub with; the README says which is for what. Default: the method that the actor was enrolled for, "
            f"otherwise {DEFAULT_METHOD}.",
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
    face: options.Face = "auto",
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
    mix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sound file with the music and effects of VIDEO, without dialogue, to put under the new speech. Default: none.",
        ),
    ] = None,
    mix_level: Annotated[
        float,
        typer.Option(min=LEAST_LEVEL_DB, max=MOST_LEVEL_DB, metavar="DB", help="Gain of the music and effects, decibels."),
    ] = 0.0,
    duck: Annotated[
        float,
        typer.Option(
            min=0.0, max=MOST_DUCK_DB, metavar="DB", help="Further decibels by which music and effects are quieter under speech."
        ),
    ] = DUCK_DB,
    fit: Annotated[
        str,
        typer.Option(
            metavar="|".join(FITS),
            help="Length of the video where the speech is longer or shorter than VIDEO. cut: that of VIDEO. pad: the longer of the "
            "two, with the last frame held. All others: that of the speech. loop shows VIDEO again from its beginning, bounce "
            "forwards and backwards, slow at another speed, retime slower in pauses. Default: cut. Videos of these methods are "
            f"always as long as the speech: {options.TIMELINE_METHODS}.",
        ),
    ] = "",
    expression: Annotated[
        str,
        typer.Option(
            metavar="|".join(EXPRESSIONS),
            help="What becomes of the slow expression of the person in VIDEO, such as a smile: kept, or replaced by the expression "
            "that the method predicts. Default: keep; neutral with any other --fit than cut and for these methods: "
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
    quality: Annotated[
        str,
        typer.Option(
            metavar=f"{'|'.join(QUALITIES)}|NUMBER",
            help="Quality of the pictures in H.264, HEVC and AV1. A number is a crf of H.264, from 0 (best) to 51. Default: high, "
            "which is 16. The field encode_quality of a batch row or of CreateDub.",
        ),
    ] = "",
    label: options.Label = "",
    label_position: options.LabelPosition = "",
    report: options.Report = None,
    consent: options.ConsentFile = None,
    project: options.Project = "",
    language: options.Language = "",
    personalize: options.Personalize = True,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    rate: options.Rate = "",
    footage_sound: options.FootageSound = None,
    ocio: options.Ocio = "",
    input_colourspace: options.InputColourspace = "",
    display: options.Display = "",
    view: options.View = "",
) -> None:
    """Give VIDEO new speech and write the video."""
    from gateway.dub.face_choice import parse_face
    from gateway.dub.lines import lines_of, read_lines
    from gateway.dub.request import DubRequest, refuse_input
    from gateway.dub.sequences import check_sequence_options, sequence_settings
    from gateway.media.choices import OcioSettings
    from gateway.media.encoders import crf_of
    from gateway.media.label import label_of
    from gateway.media.mix import SoundMix
    from gateway.reports.folder import check_report_folder

    settings = options.gateway_settings(stages)
    colour = OcioSettings(config=ocio, colourspace=input_colourspace, display=display, view=view)
    sequence = sequence_settings(video, rate=rate, sound=footage_sound, colour=colour)
    if sequence is not None:
        check_sequence_options(fit=fit, method=method, codec=codec, encode_quality=quality)
    if codec is not None and codec not in CODECS:
        raise InvalidRequestError(f"--codec {codec!r} is unknown; there are: {', '.join(CODECS)}", field="codec")
    if reference_consent is not None and reference is None:
        raise InvalidRequestError("--reference-consent is given without --reference FILE", field="reference_consent")
    request = DubRequest(
        footage=video,
        speech=audio,
        audio_channel=audio_channel,
        output=output,
        method=combined(method or DEFAULT_METHOD, motion, renderer),
        face=parse_face(face),
        consent=options.consent_record(consent),
        reference=reference,
        reference_consent=options.consent_record(reference_consent),
        use=options.consent_use(project, language),
        fit=fit_named(fit),
        expression=expression_named(expression),
        expressiveness=expressiveness,
        mix=SoundMix(file=mix, level_db=mix_level, duck_db=duck) if mix is not None else None,
        keep_audio=keep_audio,
        label=label_of(label, label_position),
        codec=codec,
        crf=crf_of(quality, codec),
        enrol=options.enrol_options(personalize=personalize, seed=seed),
        threads=settings.compute_threads,
        overwrite=overwrite,
    )
    if lines is not None:
        refuse_input(output, lines, "the file of the lines")
        request = replace(request, lines=lines_of(read_lines(lines), request, file=str(lines), folder=str(lines.parent)))
    records = [file for file in (consent, reference_consent) if file is not None]
    for record in records:
        refuse_input(output, record, "a consent record")
    if reference is not None:
        refuse_input(output, reference, "the reference")
    if report is not None:
        spoken = [line.dub.speech for line in request.lines]
        files = (video, audio, lines, mix, reference, *spoken, *records, output)
        check_report_folder(report, [file for file in files if file is not None])
    chosen = None if method is None and motion is None and renderer is None else request.method
    run_async(run_dub(settings, request, actor, chosen, report, sequence))
