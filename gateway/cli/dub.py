"""`dubstage dub`: give a video new speech, in one language or in several.

Modules that dub are imported in functions: the help and a wrong option need none of them.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from gateway.async_utilities import in_thread
from gateway.cli import options
from gateway.cli.app import HELP_OPTIONS, app, run_async
from gateway.cli.console import printable, say, say_error, say_json, say_result, say_warning, wants_json
from gateway.cli.progress import StepProgress
from gateway.cli.values import named_paths, sound_against_picture
from gateway.dub.choices import EXPECTED_TIME, EXPRESSIONS, FITS, PREVIEW_S
from gateway.media.choices import (
    CODECS,
    DUCK_DB,
    LEAST_HALVED,
    LEAST_LEVEL_DB,
    MOST_DUCK_DB,
    MOST_LEVEL_DB,
    QUALITIES,
)
from services.common.errors import UNDUBBED_EXIT_CODE, DubstageError, InvalidRequestError
from services.common.methods import DEFAULT_METHOD, STILL_METHOD, combined
from services.common.texts import Text

if TYPE_CHECKING:
    from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec
    from gateway.actors.installation import Installation
    from gateway.dub.job.kept_result import KeptResult
    from gateway.dub.job.outcome import DubOutcome, PartOutcome
    from gateway.dub.request.dub_request import DubRequest
    from gateway.dub.request.spec import LocalFiles
    from gateway.dub.sound.speech_command import SpokenText
    from gateway.engine import Engine
    from gateway.media.sequences import SequenceDub
    from gateway.settings import GatewaySettings
    from gateway.stages.interface import Stages

LANGUAGE: Final = "{language}"
"""Part of --output and --report that stands for the language of each speech."""


@dataclass(frozen=True, slots=True)
class SpokenOutput:
    """One speech of the command line, and what is written with it.

    Attributes:
        language: language of the speech (BCP 47); empty: none is named.
        audio: sound file; None: the sound of the footage.
        output: the video, or the pattern of the frames.
        report: folder of the report; None: no report is written.
    """

    language: str
    audio: Path | None
    output: Path
    report: Path | None


def spoken_outputs(audio: Sequence[str], language: str, output: Path, report: Path | None) -> list[SpokenOutput]:
    """Return the speeches of the options --audio, each with its output.

    Raises:
        InvalidRequestError: several speeches have one output or report, or a text is not TAG=FILE.
    """
    if LANGUAGE not in str(output):
        if len(audio) > 1:
            raise InvalidRequestError(
                f"several --audio need {LANGUAGE} in --output: --audio de=de.wav --audio fr=fr.wav --output 'video.{LANGUAGE}.mp4'",
                field="output",
            )
        return [SpokenOutput(language, _sound_file(audio[0]) if audio else None, output, report)]
    from gateway.consent.record import use_of

    if language or not audio:
        raise InvalidRequestError(
            f"--output has {LANGUAGE}: give each speech with its language, --audio de=de.wav, and no --language", field="audio"
        )
    files = named_paths(audio, option="audio")
    if report is not None and LANGUAGE not in str(report) and len(files) > 1:
        raise InvalidRequestError(f"several --audio need {LANGUAGE} in --report too", field="report")
    for tag in files:
        use_of("", tag)
    outputs = {Path(str(output).replace(LANGUAGE, tag)).absolute(): tag for tag in files}
    for tag, file in files.items():
        if file.absolute() in outputs:
            raise InvalidRequestError(f"--audio {tag}={file} is the output of {outputs[file.absolute()]}", field="audio")
    return [
        SpokenOutput(
            tag,
            file,
            Path(str(output).replace(LANGUAGE, tag)),
            Path(str(report).replace(LANGUAGE, tag)) if report is not None else None,
        )
        for tag, file in files.items()
    ]


def _sound_file(audio: str) -> Path:
    """Return the file of the option --audio of a dub in one language.

    Raises:
        InvalidRequestError: there is no such file, but a file of the text behind a language.
    """
    language, sign, file = audio.partition("=")
    if sign and file and not Path(audio).exists() and Path(file).is_file():
        raise InvalidRequestError(
            f"--audio {audio}: there is no such file, but a file {file}: give --audio {file} --language {language}, or put "
            f"{LANGUAGE} into --output",
            field="audio",
        )
    return Path(audio)


def show_outcome(request: DubRequest, outcome: DubOutcome, output: Path, report: Path | None, *, language: str = "") -> None:
    """Print warnings, counts of frames and the consent record to stderr, and the paths of output and report to stdout.

    Args:
        request: the request that was dubbed, with the enrolled actors and their consent records.
        outcome: its result.
        output: the video, or the pattern of the frames, that the user asked for.
        report: folder of the report; None: there is none.
        language: language that lines about the dub begin with; empty: the command makes one dub.

    Raises:
        typer.Exit: no frame is dubbed, so that the command ends with an exit code of its own.
    """
    from gateway.dub.request.dub_request import consent_sentence

    def of_dub(text: str) -> str:
        return Text("{language}: {text}", language=language, text=text) if language else text

    for warning in outcome.warnings:
        say_warning(of_dub(warning))
    for line in _about_outcome(request, outcome):
        say(of_dub(line))
    for dropped in outcome.written.dropped:
        say_warning(of_dub(dropped))
    say(of_dub(consent_sentence(request)))
    _show_files(output, report)
    if outcome.undubbed:
        say_error(of_dub(outcome.undubbed))
        raise typer.Exit(UNDUBBED_EXIT_CODE)


def _about_outcome(request: DubRequest, outcome: DubOutcome) -> list[str]:
    """Return faces, counts of frames, lag, and what was taken from earlier runs, one sentence each."""
    lines = [_about_part(part) for part in outcome.parts if part.name or part.face_id is not None]
    counts = outcome.plan.counts()
    dubbed = int(outcome.plan.rendered().sum())
    frames = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    lines.append(f"{dubbed} of {outcome.plan.num_frames} frames dubbed ({frames})")
    if outcome.actor is not None and outcome.actor.lag_frames and not request.lines:
        lines.append(sound_against_picture(outcome.actor.lag_frames))
    if outcome.analysis_reused:
        lines.append("the faces of the footage had been tracked before (`dubstage jobs list`)")
    if outcome.windows_reused:
        lines.append(f"{outcome.windows_reused} windows taken from an earlier run, {outcome.windows_computed} windows computed")
    return lines


def _show_finished(output: Path, report: Path | None) -> None:
    """Say that nothing was computed, and print the paths of output and report to stdout."""
    say(f"{output} is already the result of this request; --force makes it again")
    _show_files(output, report)


def _show_files(output: Path, report: Path | None) -> None:
    say_result(str(output))
    if report is not None:
        say_result(str(report / "index.html"))


def _about_part(part: PartOutcome) -> str:
    """Return which face was dubbed in a dub, or in a line, and why."""
    if not part.name:
        return f"face {part.face_id} is dubbed: {part.why}"
    if part.face_id is None:
        return f"{part.name}: {part.why}"
    said = f"{part.num_dubbed} of {len(part.frames)} frames dubbed, from frame {part.frames.start} on"
    return f"{part.name}: face {part.face_id}, {part.why}: {said}"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A checked dub.

    Attributes:
        request: the request.
        frames: the image sequence of the footage; None: the footage is a video.
        output: the video, or the pattern of the frames, that the user asked for.
        report: folder of the report; None: no report is written.
    """

    request: DubRequest
    frames: SequenceDub | None
    output: Path
    report: Path | None


class _OpenedOnce:
    """Stages of a command, opened by the first dub that computes.

    Args:
        stack: closes the stages.
    """

    def __init__(self, installation: Installation, stack: AsyncExitStack) -> None:
        self._installation, self._stack = installation, stack
        self._stages: Stages | None = None

    async def open(self, progress: StepProgress) -> Stages:
        """Return the stages."""
        if self._stages is None:
            progress.begin("start")
            self._stages = await self._stack.enter_async_context(self._installation.stages())
        return self._stages


class DubRun:
    """Dubs of one command, one after the other, with the same stages. The second takes over the analysis of the first.

    Args:
        settings: settings of the command.
        files: files of the names in the specs.
        lines: file of the lines of a scene, for messages; None: there is none.
        force: dub even if the output is the result of the very same request already.
        words: words that a command speaks, by number of the line, from 0; without lines: 0. The specs name all other speech.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        files: LocalFiles,
        lines: Path | None,
        *,
        force: bool = False,
        words: Mapping[int, SpokenText] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._words = words
        self._files = files
        self._lines = lines
        self._force = force
        self._stages_sha256 = ""
        self._documents: list[dict[str, Any]] = []

    async def run(self, asked: Sequence[tuple[DubSpec, Path | None]]) -> None:
        """Dub the footage once for each spec, write the reports, and print the results. All specs are checked before the first dub,
        but specs of image sequences before their own dub.

        If one of several dubs fails, the others are done, and the command ends with the exit code of the first that failed.

        Args:
            asked: each dub, and the folder of its report; None: no report is written.

        Raises:
            DubstageError: a request was refused, or the only dub failed.
            typer.Exit: one of several dubs failed.
        """
        from gateway.actors.installation import open_installation
        from gateway.dub.request.spec import sequence_of
        from gateway.engine import Engine, remove_old_jobs

        async with AsyncExitStack() as stack:
            installation = stack.enter_context(open_installation(self._settings))
            engine = Engine.of(installation)
            # Frames of a sequence take as much space as a video without loss: they are read when it is their turn.
            late = len(asked) > 1 and sequence_of(asked[0][0]) is not None
            prepared = {} if late else {index: await self._prepared(engine, *dub, stack) for index, dub in enumerate(asked)}
            stages = _OpenedOnce(installation, stack)
            exit_codes: list[int] = []
            for index, dub in enumerate(asked):
                output = self._files.output(dub[0].output_uri, "output_uri")
                language = dub[0].language if len(asked) > 1 else ""
                try:
                    async with AsyncExitStack() as own:
                        each = prepared[index] if not late else await self._prepared(engine, *dub, own)
                        await self._shown(engine, each, stages, output, language)
                except DubstageError as problem:
                    if len(asked) == 1:
                        raise
                    say_error(Text("{output}: {problem}", output=output, problem=problem))
                    exit_codes.append(problem.exit_code)
                except typer.Exit as ended:
                    exit_codes.append(ended.exit_code)
            if wants_json():
                say_json(self._documents[0] if len(asked) == 1 else {"results": self._documents})
            await remove_old_jobs(installation, engine)
        if exit_codes:
            raise typer.Exit(exit_codes[0])

    async def _shown(self, engine: Engine, dub: _Prepared, stages: _OpenedOnce, output: Path, language: str) -> None:
        """Dub unless the output is the result of the same request already, and print the result.

        Args:
            output: the video, or the pattern of the frames, that the user asked for.
            language: language that lines about the dub begin with; empty: the command makes one dub.

        Raises:
            DubstageError: the dub failed.
            typer.Exit: no frame is dubbed.
        """
        from gateway.api.progress import dub_steps
        from gateway.operations.step_paces import StepPaces

        result = await self._kept_result(engine, dub)
        # A document of --json has figures of the dub, which only the dub itself knows.
        dubs_again = self._force or wants_json()
        if result is not None and not dubs_again and await engine.is_finished(dub.request, result, dub.report):
            _show_finished(output, dub.report)
            return
        if language:
            say(f"{language}: {output}")
        paces = StepPaces(self._settings.data_dir, dub.request.method)
        with StepProgress(dub_steps(dub.request, report=dub.report is not None), paces=paces) as progress:
            outcome = await self._dubbed(engine, dub, await stages.open(progress), progress, result)
        if wants_json():
            from gateway.cli.documents import dub_document

            self._documents.append(await asyncio.to_thread(dub_document, dub.request, outcome, output))
        show_outcome(dub.request, outcome, output, dub.report, language=language)

    async def _prepared(self, engine: Engine, spec: DubSpec, report: Path | None, stack: AsyncExitStack) -> _Prepared:
        from gateway.dub.request.spec import files_read, sequence_of
        from gateway.dub.request.spec_text import naming_file
        from gateway.dub.state.scratch import ScratchFolders

        files = self._files
        footage, output = files.source(spec.footage_uri, "footage_uri"), files.output(spec.output_uri, "output_uri")
        sequence = sequence_of(spec)
        frames: SequenceDub | None = None
        if sequence is not None:
            scratch = stack.enter_context(closing(ScratchFolders(self._settings.data_dir)))
            folder = stack.enter_context(scratch.folder())
            with StepProgress() as reading:
                read = files_read(spec, files)
                frames = await engine.frames(footage, output, sequence, folder, reading, inputs=read, overwrite=spec.overwrite)
        with naming_file(self._lines):
            if self._words:
                request = await engine.spoken_request(
                    spec, files, self._words, frames=frames, again=self._force, on_step=lambda step: say(f"{step} ...")
                )
            else:
                request = await asyncio.to_thread(partial(engine.checked_request, spec, files, frames=frames))
        return _Prepared(request if report is None else request.for_report(), frames, output, report)

    async def _kept_result(self, engine: Engine, dub: _Prepared) -> KeptResult | None:
        """Return the result of a dub, by which the same request is answered at once; None: nothing is kept."""
        from gateway.stages.identity import stages_sha256

        # What a preview shows depends on what other dubs have learned.
        if dub.frames is not None or dub.request.preview or not engine.analyses_bytes:
            return None
        if not self._stages_sha256:
            # A file that cannot be read here is reported by the stage that needs it.
            with suppress(OSError):
                self._stages_sha256 = await asyncio.to_thread(stages_sha256, self._settings)
        if not self._stages_sha256:
            return None
        return await engine.kept_result(dub.request, self._stages_sha256, self._settings.face_model)

    async def _dubbed(
        self, engine: Engine, dub: _Prepared, stages: Stages, progress: StepProgress, result: KeptResult | None
    ) -> DubOutcome:
        """Dub, write the report if one is wanted, and note the result for identical requests.

        Args:
            result: takes the note; None: nothing is kept.
        """
        from gateway.dub.job.kept_result import video_sha256
        from gateway.engine import finished_dub

        async with finished_dub(engine, dub.request, stages, progress, progress.footage, frames=dub.frames) as done:
            keeps = result if not done.outcome.undubbed else None
            video = await in_thread(video_sha256, dub.output) if keeps is not None else []
            if dub.report is not None:
                from gateway.reports.dub_report import write_outcome_report

                try:
                    await write_outcome_report(
                        dub.request, done.outcome, done.workspace, stages, engine.artefacts, dub.report, on_progress=progress
                    )
                except DubstageError:
                    say(f"the video was written to {dub.output}, but the report was not written")
                    raise
        if keeps is not None:
            await in_thread(keeps.keep, video, dub.report, done.outcome.claim)
        return done.outcome


def _words_to_say(
    words: str | None, file: Path | None, voice: str, settings: GatewaySettings, language: str, others: dict[str, bool]
) -> SpokenText | None:
    """Return the words that a command speaks; None: none are given.

    Args:
        others: options that words exclude, and whether they are given.

    Raises:
        InvalidRequestError: options contradict each other, or the words cannot be spoken.
    """
    if words is None and file is None:
        if voice:
            raise InvalidRequestError("--voice is the voice of --say or --say-file: give one of them", field="voice")
        return None
    both = [name for name, given in {"--say-file": words is not None and file is not None, **others}.items() if given]
    if both:
        raise InvalidRequestError(f"{'--say' if words is not None else '--say-file'} and {both[0]}: give one of them", field="say")
    from gateway.consent.record import use_of
    from gateway.dub.sound.speech_command import MOST_CHARACTERS, spoken_text
    from gateway.safe_paths import bounded_bytes

    use_of("", language)
    if file is not None:
        try:
            words = bounded_bytes(file, 4 * MOST_CHARACTERS).decode("utf-8-sig")
        except (OSError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "no text in UTF-8"
            raise InvalidRequestError(f"--say-file {file} cannot be read: {why}", field="say_file") from problem
    return spoken_text(settings, words or "", language=language, voice=voice)


def _scene(settings: GatewaySettings, file: Path, language: str) -> tuple[list[LineSpec], dict[int, SpokenText]]:
    """Return the lines of a file, and the words of lines without speech by number of the line, from 0.

    Args:
        language: language of lines that name none; empty: none.

    Raises:
        InvalidRequestError: the file is no list of lines, or a command cannot speak the words of a line.
    """
    from gateway.dub.request.spec import within
    from gateway.dub.request.spec_text import naming_file, read_spoken_lines
    from gateway.dub.sound.speech_command import spoken_text

    lines, words = read_spoken_lines(file)
    spoken: dict[int, SpokenText] = {}
    for number, (text, voice) in words.items():
        with naming_file(file), within(f"lines[{number}]"):
            spoken[number] = spoken_text(settings, text, language=lines[number].language or language, voice=voice)
    return lines, spoken


class _DubCommand(TyperCommand):
    """Command that names `--audio` to a user who gives the speech as a second argument, before any other mistake is reported."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, more, _ = self.make_parser(ctx).parse_args(args=list(args))
        if more and not {*HELP_OPTIONS} & {*args}:
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
            "such as dub/shot.%04d.exr. With several --audio: a name with {language}, such as 'video.{language}.mp4'.",
        ),
    ],
    audio: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Sound file with the new speech. Default: the sound of the footage. TAG=FILE, such as de=de.wav, several times: a "
            "video for each language, at the price of one analysis of VIDEO.",
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            "--say",
            metavar="WORDS",
            help="Words to say, in place of --audio. The command of DUBSTAGE_SPEECH_COMMAND speaks the words once; --force speaks "
            "them again. The video states that its voice is synthetic.",
        ),
    ] = None,
    say_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file in UTF-8 with words to say, in place of --say.")
    ] = None,
    voice: Annotated[
        str, typer.Option(metavar="NAME", help="Voice of --say, as the command of DUBSTAGE_SPEECH_COMMAND names it.")
    ] = "",
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
            help="JSON file with the lines of a scene. Each line has start, speech (or say), and face, box or actor. Outside of "
            "the lines, the video keeps the pictures and the sound of the footage. A second call with one line changed renders "
            "that line alone.",
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
    device: options.Device = None,
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
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help=f"Dub only the first {PREVIEW_S} seconds, or those from --preview-at on, without training networks, for a quick "
            f"look. The video has half of the footage's width and height if the shorter has {LEAST_HALVED} pixels or more and both "
            "halve evenly; with --report, the footage's size.",
        ),
    ] = False,
    preview_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help=f"Time at which --preview begins: {EXPECTED_TIME}. Default: the first frame.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Dub again, even if the output is already the result of this request: of the same files, options and version. "
            "--json does so too: the document has figures of the dub.",
        ),
    ] = False,
    rate: options.Rate = "",
    footage_sound: options.FootageSound = None,
    ocio: options.Ocio = "",
    input_colourspace: options.InputColourspace = "",
    display: options.Display = "",
    view: options.View = "",
    _: options.AsJson = False,
) -> None:
    """Give VIDEO new speech and write the video."""
    from gateway.dub.request.dub_request import default_method
    from gateway.dub.request.spec import LocalFiles
    from gateway.dub.request.spec_text import spec_from
    from gateway.media.output import refuse_input
    from gateway.reports.folder import check_report_folder

    settings = options.gateway_settings(stages, device)
    files = LocalFiles(str(lines.parent) if lines is not None else "")
    named = method
    if named is not None or motion is not None or renderer is not None:
        named = combined(named or default_method(str(video), video), motion, renderer)
    others = {"--audio": bool(audio), "--audio-channel": audio_channel is not None, "--lines": lines is not None}
    said = _words_to_say(words, say_file, voice, settings, language, others)
    scene, to_say = _scene(settings, lines, language) if lines is not None else (None, {0: said} if said is not None else {})
    asked: list[tuple[DubSpec, Path | None]] = []
    for each in spoken_outputs(audio or [], language, output, report):
        spec = spec_from(
            {
                "footage": files.name(video),
                "output": files.name(each.output),
                "speech": files.name(each.audio),
                "audio_channel": audio_channel,
                "actor": actor,
                "consent": files.name(consent),
                "project": project,
                "language": each.language,
                "method": named,
                "face": face,
                "lines": scene,
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
                "preview": preview or None,
                "preview_at": preview_at,
                "rate": rate,
                "footage_sound": files.name(footage_sound),
                "ocio": ocio,
                "input_colourspace": input_colourspace,
                "display": display,
                "view": view,
            }
        )
        if lines is not None:
            refuse_input(each.output, lines, "the file of the lines")
        if say_file is not None:
            refuse_input(each.output, say_file, "the file of the words")
        if each.report is not None:
            spoken = [Path(lines.parent, line.speech_uri) for line in spec.lines if line.speech_uri] if lines is not None else []
            read = (video, each.audio, say_file, lines, mix, reference, consent, reference_consent, *spoken, each.output)
            check_report_folder(each.report, [file for file in read if file is not None])
        asked.append((spec, each.report))
    run_async(DubRun(settings, files, lines, force=force, words=to_say).run(asked))
