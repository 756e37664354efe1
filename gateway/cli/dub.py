"""`dubstage dub`: give a video new speech.

Modules that dub are imported in functions: the help and a wrong option need none of them.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import AsyncExitStack, closing
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
from gateway.dub.choices import EXPRESSIONS, FITS
from gateway.media.choices import (
    CODECS,
    DUCK_DB,
    LEAST_LEVEL_DB,
    MOST_DUCK_DB,
    MOST_LEVEL_DB,
    QUALITIES,
)
from services.common.errors import UNDUBBED_EXIT_CODE, DubstageError
from services.common.methods import DEFAULT_METHOD, STILL_METHOD, combined

if TYPE_CHECKING:
    from dubstage.gateway.v1.dub_pb2 import DubSpec
    from gateway.dub.job.outcome import DubOutcome
    from gateway.dub.request.dub_request import DubRequest
    from gateway.dub.request.spec import LocalFiles
    from gateway.media.sequences import SequenceDub
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
    from gateway.dub.request.dub_request import consents

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


async def run_dub(settings: GatewaySettings, spec: DubSpec, files: LocalFiles, report: Path | None, lines: Path | None) -> None:
    """Dub the footage, write the report, and print the result.

    Args:
        spec: the dub of the command line.
        files: files of the names in the spec.
        report: folder of the report; None: no report is written.
        lines: file of the lines of a scene, for messages; None: there is none.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    from gateway.actors.installation import open_installation
    from gateway.api.progress import dub_steps
    from gateway.dub.request.spec import sequence_of
    from gateway.dub.request.spec_text import naming_file
    from gateway.dub.state.workspace import ScratchFolders
    from gateway.engine import Engine, finished_dub, remove_old_jobs
    from gateway.operations.step_paces import StepPaces

    footage, output = files.source(spec.footage_uri, "footage_uri"), files.output(spec.output_uri, "output_uri")
    spoken = [files.source(line.speech_uri, f"lines[{place}]") for place, line in enumerate(spec.lines)]
    spoken += [files.source(spec.speech_uri, "speech_uri")] if spec.speech_uri else []
    sequence = sequence_of(spec)
    async with AsyncExitStack() as stack:
        installation = stack.enter_context(open_installation(settings))
        engine = Engine.of(installation)
        frames: SequenceDub | None = None
        if sequence is not None:
            scratch = stack.enter_context(closing(ScratchFolders(settings.data_dir)))
            folder = stack.enter_context(scratch.folder())
            with StepProgress() as reading:
                frames = await engine.frames(footage, output, sequence, folder, reading, inputs=spoken, overwrite=spec.overwrite)
        with naming_file(lines):
            request = await asyncio.to_thread(partial(engine.checked_request, spec, files, frames=frames))
        steps, paces = dub_steps(request, report=report is not None), StepPaces(settings.data_dir, request.method)
        with StepProgress(steps, paces=paces) as progress:
            progress.begin("starting the stages")
            async with (
                installation.stages() as stages,
                finished_dub(engine, request, stages, progress, progress.footage, frames=frames) as done,
            ):
                if report is not None:
                    from gateway.reports.dub_report import write_outcome_report

                    try:
                        await write_outcome_report(
                            request, done.outcome, done.workspace, stages, installation.artefacts, report, on_progress=progress
                        )
                    except DubstageError:
                        say(f"the video was written to {output}, but the report was not written")
                        raise
        await remove_old_jobs(installation, engine)
    show_outcome(request, done.outcome, output, report)


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
            f"otherwise {DEFAULT_METHOD}, or {STILL_METHOD} for a single picture.",
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
    finish: options.FinishChoice = None,
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
    from gateway.dub.request.dub_request import default_method, refuse_input
    from gateway.dub.request.spec import LocalFiles
    from gateway.dub.request.spec_text import read_lines, spec_from
    from gateway.reports.folder import check_report_folder

    settings = options.gateway_settings(stages)
    files = LocalFiles(str(lines.parent) if lines is not None else "")
    named = method
    if named is not None or motion is not None or renderer is not None:
        named = combined(named or default_method(str(video), video), motion, renderer)
    spec = spec_from(
        {
            "footage": files.name(video),
            "output": files.name(output),
            "speech": files.name(audio),
            "audio_channel": audio_channel,
            "actor": actor,
            "consent": files.name(consent),
            "project": project,
            "language": language,
            "method": named,
            "face": face,
            "lines": read_lines(lines) if lines is not None else None,
            "fit": fit or None,
            "expression": expression or None,
            "finish": finish,
            "expressiveness": expressiveness,
            "reference": files.name(reference),
            "reference_consent": files.name(reference_consent),
            "mix": files.name(mix),
            "mix_level_db": mix_level,
            "duck_db": duck,
            "keep_audio": keep_audio,
            "label": label,
            "label_position": label_position or None,
            "codec": codec,
            "encode_quality": quality,
            "personalize": personalize,
            "seed": seed,
            "overwrite": overwrite,
            "rate": rate,
            "footage_sound": files.name(footage_sound),
            "ocio": ocio,
            "input_colourspace": input_colourspace,
            "display": display,
            "view": view,
        }
    )
    if lines is not None:
        refuse_input(output, lines, "the file of the lines")
    if reference is not None:
        refuse_input(output, reference, "the reference")
    if report is not None:
        spoken = [Path(lines.parent, line.speech_uri) for line in spec.lines] if lines is not None else []
        read = (video, audio, lines, mix, reference, consent, reference_consent, *spoken, output)
        check_report_folder(report, [file for file in read if file is not None])
    run_async(run_dub(settings, spec, files, report, lines))
