"""`dubstage evaluate`: self-re-enactment of clips with metrics, confidence intervals and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli import options
from gateway.cli.app import app
from gateway.cli.console import say_result
from gateway.evaluation.folds import MIN_WRONG_SPEECHES
from gateway.evaluation.perceptual import SuppliedNetworks
from gateway.evaluation.result_json import check_json_place
from gateway.evaluation.types import VARIANTS, Variant
from gateway.methods import DEFAULT_METHOD, combined
from gateway.reports.folder import check_report_folder
from services.common.errors import InvalidRequest

MOST_WRONG_SPEECHES: Final = 1000


@app.command("evaluate")
def evaluate(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Videos with sound, each of one person who talks.")],
    method: Annotated[
        str, typer.Option(metavar=options.METHOD_VALUES, help="Method to evaluate, or MOTION+RENDERER of two methods.")
    ] = DEFAULT_METHOD,
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="JSON file to write all figures to.")] = None,
    report: options.Report = None,
    variants: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            show_default=False,
            help=f"Variants to render, separated by commas: {', '.join(VARIANTS)}. Default: all of them.",
        ),
    ] = ",".join(VARIANTS),
    wrong_count: Annotated[
        int,
        typer.Option(
            min=MIN_WRONG_SPEECHES,
            max=MOST_WRONG_SPEECHES,
            metavar="NUMBER",
            help="Number of other speeches for the variant wrong_audio.",
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing --json file even if it holds no results of an evaluation.")
    ] = False,
) -> None:
    """Enrol the person on one part of each CLIP, dub the rest with its own sound, and compare the result with the real film.

    A transcript shows how often the lips close on p, b and m. The transcript is read from CLIP.txt or CLIP.align, or from a
    catalogue.csv in a folder above the clip.
    """
    from gateway.cli.evaluate_result import save_evaluation_report, show_scores
    from gateway.cli.evaluate_run import EvaluationRequest, run_evaluation

    method = combined(method, motion, renderer)
    chosen = _variants(variants)
    settings = options.gateway_settings(stages)
    inputs = [*clips, *(file for file in (lpips_weights, fid_weights) if file is not None)]
    if json_file is not None:
        check_json_place(json_file, inputs, overwrite=overwrite)
    if report is not None:
        check_report_folder(report, [*inputs, *([json_file] if json_file is not None else [])])
    networks = SuppliedNetworks(lpips_weights, fid_weights) if lpips_weights or fid_weights else None
    request = EvaluationRequest(
        clips=clips,
        method=method,
        variants=chosen,
        wrong_count=wrong_count,
        enrol=options.enrol_options(personalize=personalize, seed=seed),
        perceptual=networks.accumulator if networks is not None else None,
        json_file=json_file,
    )
    results = run_evaluation(settings, request)
    show_scores(results)
    if report is not None:
        say_result(str(save_evaluation_report(results, method, report)))
    if json_file is not None:
        say_result(str(json_file))


def _variants(text: str) -> tuple[Variant, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise InvalidRequest(
            f"--variants takes {', '.join(VARIANTS)}; it was given {', '.join(unknown) or 'nothing'}", field="variants"
        )
    return tuple(variant for variant in VARIANTS if variant in names)
