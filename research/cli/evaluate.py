"""`dubstage evaluate`: self-re-enactment of clips with metrics, confidence intervals and a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli import options
from gateway.cli.app import app, log_on_stderr
from gateway.cli.console import err, say, say_json, say_output, say_result, say_warning, wants_json
from gateway.cli.values import names_in, sound_against_picture
from research.evaluation.head_motion import HEAD_FIGURES
from research.evaluation.perceptual import SuppliedNetworks
from research.evaluation.protocol import MIN_WRONG_SPEECHES
from research.evaluation.results import to_json
from research.evaluation.strips import write_strips
from research.evaluation.targets import check_targets
from research.evaluation.types import DEFAULT_VARIANTS, METRICS, TABLE_VARIANTS, VARIANTS, ClipResult, Variant
from services.common.errors import InvalidRequestError
from services.common.methods import DEFAULT_METHOD, combined

WIDTH: Final = 80
"""Least width of a table in characters. A narrower terminal wraps the lines."""
_GAP: Final = 2
MOST_WRONG_SPEECHES: Final = 1000


def score_lines(rows: Sequence[str], columns: Mapping[str, Mapping[str, float]], width: int = WIDTH) -> Iterator[str]:
    """Yield the lines of one table. If not all columns fit, yield several tables, one under the other.

    Args:
        rows: names of the figures, in the order of the rows.
        columns: figures by name, for each column by name.
        width: width of the terminal in characters; a smaller number than `WIDTH` counts as `WIDTH`.
    """
    first = max(map(len, rows), default=0)
    room = max(width, WIDTH) - first
    names = list(columns)
    while names:
        shown = [names.pop(0)]
        while names and sum(_GAP + _width(name) for name in (*shown, names[0])) <= room:
            shown.append(names.pop(0))
        yield " " * first + "".join(f"{name:>{_GAP + _width(name)}}" for name in shown)
        for row in rows:
            yield f"{row:<{first}}" + "".join(f"{columns[name][row]:>{_GAP + _width(name)}.3f}" for name in shown)
        if names:
            yield ""


def _width(name: str) -> int:
    return max(len(name), 7)


def show_results(
    results: Sequence[ClipResult], method: str, report: Path | None, json_file: Path | None, strips: Path | None = None
) -> None:
    """Print the scores, write the report and the strips if their folders are given, and name the files that were written.

    Raises:
        InvalidRequestError, StorageFullError: a folder cannot be written.
    """
    show_scores(results)
    shown = write_strips(strips, results) if strips is not None else []
    show_files(save_evaluation_report(results, method, report) if report is not None else None, json_file, *shown)


def show_files(*paths: Path | None) -> None:
    """Print the names of files that were written."""
    for path in paths:
        if path is not None:
            say_result(str(path))


def show_scores(results: Sequence[ClipResult]) -> None:
    """Print a table of scores per clip, and a warning for each score that is below its target, to stderr."""
    width = err.width
    for result in results:
        say(f"{result.clip} ({sound_against_picture(result.lag_frames)})" if result.lag_frames else result.clip)
        for each in result.folds:
            if each.lag_doubt:
                part = each.fold.enrol
                say_warning(
                    f"{result.clip}, enrolled on frames {part.start} to {part.stop - 1}: no lag is applied: {each.lag_doubt}"
                )
        for line in score_lines(METRICS, {name: scores.metrics for name, scores in result.variants.items()}, width):
            say(line)
        if result.head_motion is not None:
            say("head motion")
            for line in score_lines(HEAD_FIGURES, result.head_motion.scores, width):
                say(line)
        say(", ".join(f"{name} {value:.1f}" for name, value in result.cost.items()))
    for check in check_targets(results):
        if not check.passed:
            say_warning(f"below its target: {check}")


def save_evaluation_report(results: Sequence[ClipResult], method: str, folder: Path) -> Path:
    """Write the HTML report of an evaluation to a folder, and return the path of the page.

    Raises:
        InvalidRequestError, StorageFullError: the folder cannot be written.
    """
    from research.evaluation.report import EvaluationReport, write_evaluation_report

    return write_evaluation_report(EvaluationReport(title="Self-re-enactment", method=method, clips=results), folder)


@app.command("evaluate")
@log_on_stderr()
def evaluate(
    clips: Annotated[
        list[Path],
        typer.Argument(
            metavar="CLIP...",
            help="Videos with sound, each of one person who talks. With --splits also folders with a catalogue.csv.",
        ),
    ],
    method: Annotated[
        str, typer.Option(metavar=options.METHOD_VALUES, help="Method to evaluate, or MOTION+RENDERER of two methods.")
    ] = DEFAULT_METHOD,
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    finish: options.FinishChoice = None,
    result: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write all figures to.")] = None,
    report: options.Report = None,
    strips: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="New or empty folder to write a PNG for each clip and variant to: 30 consecutive frames of the mouth at the "
            "size of the video, the real video above the dub.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.md",
            help="Markdown file to write, one row per method: the mean of all clips, and the worst clip. --result has all figures "
            "(default: FILE.json), and what is there is not evaluated again.",
        ),
    ] = None,
    all_methods: Annotated[bool, typer.Option("--all-methods", help="A row of --table for every method.")] = False,
    ablation: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="A row of --table for every block of the method that is left out or replaced."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Networks of a row of --ablation: a folder that `dubstage export` wrote. Repeatable.",
        ),
    ] = None,
    splits: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="Values of the column `use` of catalogue.csv: a folder stands for its videos of these splits."
        ),
    ] = "",
    enrol_frames: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Usable frames to adapt the renderer with. Default: all."),
    ] = None,
    enrol_seconds: Annotated[
        str,
        typer.Option(
            metavar="SECONDS,...",
            help="Rows of --table for these seconds of enrolment. All of them are tested on the last fifth of each clip.",
        ),
    ] = "",
    fold: Annotated[
        int | None,
        typer.Option(min=0, metavar="NUMBER", help="Fold of each clip to enrol and test on, from 0. Default: all folds."),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help=f"Variants to render, separated by commas: {', '.join(VARIANTS)}. Default: all but wrong_audio_kept; "
            f"with --table: {', '.join(TABLE_VARIANTS)}.",
        ),
    ] = None,
    wrong_count: Annotated[
        int,
        typer.Option(
            min=MIN_WRONG_SPEECHES,
            max=MOST_WRONG_SPEECHES,
            metavar="NUMBER",
            help="Number of other speeches for the variants wrong_audio and wrong_audio_kept.",
        ),
    ] = MIN_WRONG_SPEECHES,
    personalize: Annotated[bool, typer.Option(help="Adapt the networks to the person, separately for each enrolment part.")] = True,
    seed: options.Seed = 0,
    lpips_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TorchScript file of an LPIPS network. Default: LPIPS is not measured.")
    ] = None,
    fid_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TorchScript file of an Inception network. Default: FID is not measured.")
    ] = None,
    stages: options.Stages = None,
    device: options.Device = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace an existing --result or --table file even if it holds no results of an evaluation, and write to a "
            "--strips folder that holds files.",
        ),
    ] = False,
    _: options.AsJson = False,
) -> None:
    """Enrol the person on one part of each CLIP, dub the rest with its own sound, and compare the result with the real video.

    The sound is used at its own time, so errors in time count. The variant full_aligned alone has the measured lag taken out.

    A transcript shows how often the lips close on p, b and m. The transcript is read from CLIP.txt or CLIP.align, or from a
    catalogue.csv in a folder above the clip.
    """
    from research.cli.evaluate_run import EvaluationRequest, TableChoice, check_outputs, clips_of, run_evaluation, write_table

    choice = TableChoice(all_methods=all_methods, ablation=ablation, weights=weights or (), enrol_seconds=enrol_seconds)
    choice.check(table, report, strips)
    method = combined(method, motion, renderer)
    settings = options.gateway_settings(stages, device)
    supplied = [file for file in (lpips_weights, fid_weights) if file is not None]
    networks = SuppliedNetworks(lpips_weights, fid_weights) if supplied else None
    request = EvaluationRequest(
        clips=clips_of(clips, splits),
        method=method,
        finish=finish,
        variants=_variants(variants, DEFAULT_VARIANTS if table is None else TABLE_VARIANTS),
        wrong_count=wrong_count,
        enrol=options.enrol_options(personalize=personalize, seed=seed),
        perceptual=networks.accumulator if networks is not None else None,
        json_file=result if result is not None or table is None else table.with_suffix(".json"),
        enrol_frames=enrol_frames,
        strips=strips is not None,
        only_fold=fold,
        perceptual_sha256=networks.sha256 if networks is not None else {},
    )
    check_outputs([*request.clips, *supplied], request.json_file, report, strips, overwrite=overwrite)
    if table is not None:
        write_table(settings, request, choice, table, overwrite=overwrite)
        say_output(*filter(None, (table, request.json_file)))
        return
    results = run_evaluation(settings, request)
    show_results(results, method, report, result, strips)
    if wants_json():
        say_json(to_json(results, method))


def _variants(text: str | None, default: tuple[Variant, ...]) -> tuple[Variant, ...]:
    if text is None:
        return default
    names = names_in(text)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise InvalidRequestError(
            f"--variants takes {', '.join(VARIANTS)}; it was given {', '.join(unknown) or 'nothing'}", field="variants"
        )
    return tuple(variant for variant in VARIANTS if variant in names)
