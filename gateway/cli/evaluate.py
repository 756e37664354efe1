"""`dubstage evaluate`: self-re-enactment of clips, with metrics, intervals and a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import options
from gateway.cli.app import app
from gateway.cli.console import err, say, say_result, say_warning
from gateway.cli.progress import StepProgress
from gateway.cli.score_tables import score_lines
from gateway.evaluation.bilabials import find_transcript
from gateway.evaluation.folds import MIN_WRONG_SPEECHES
from gateway.evaluation.head_scores import HEAD_FIGURES
from gateway.evaluation.perceptual import SuppliedNetworks
from gateway.evaluation.protocol import EvaluationSettings, evaluate_clip
from gateway.evaluation.result_json import check_json_place, write_json
from gateway.evaluation.sync import StageSyncDistance
from gateway.evaluation.targets import check_targets
from gateway.evaluation.types import METRICS, VARIANTS, ClipResult, Variant
from gateway.methods import DEFAULT_METHOD, combined
from gateway.pipeline.enrol import EnrolOptions
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequest
from services.common.settings import load_settings

MOST_WRONG_SPEECHES = 1000


@app.command("evaluate")
def evaluate(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP...", help="Videos of one person who talks, with their sound.")],
    method: Annotated[
        str, typer.Option(metavar=options.METHOD_VALUES, help="Method to evaluate, or MOTION+RENDERER of two methods.")
    ] = DEFAULT_METHOD,
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures to this JSON file.")] = None,
    report: options.Report = None,
    variants: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            show_default=False,
            help=f"Variants to render, separated by commas, of {', '.join(VARIANTS)}. Default: all of them.",
        ),
    ] = ",".join(VARIANTS),
    wrong_count: Annotated[
        int,
        typer.Option(
            min=MIN_WRONG_SPEECHES, max=MOST_WRONG_SPEECHES, metavar="NUMBER", help="Foreign speeches for the variant wrong_audio."
        ),
    ] = MIN_WRONG_SPEECHES,
    personalize: Annotated[bool, typer.Option(help="Adapt the networks to the person in each enrolment part.")] = True,
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
    """Personalise on one part of each CLIP, dub the rest with its own sound, and compare with the truth.

    A transcript for closure on p, b, m is taken from CLIP.txt or CLIP.align, or from a catalogue.csv in a folder above the clip.
    """
    from gateway.evaluation.session import PipelineSession, StageRetrack, check_clip
    from gateway.stages.host import StageHost

    method = combined(method, motion, renderer)
    chosen = _variants(variants)
    settings = load_settings(GatewaySettings, stages_host=stages)
    inputs = [*clips, *(file for file in (lpips_weights, fid_weights) if file is not None)]
    if json_file is not None:
        check_json_place(json_file, inputs, overwrite=overwrite)
    if report is not None:
        check_report_folder(report, [*inputs, *([json_file] if json_file is not None else [])])
    enrol_options = EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize, seed=seed)
    networks = SuppliedNetworks(lpips_weights, fid_weights) if lpips_weights or fid_weights else None
    for clip in clips:
        check_clip(clip)
    transcripts = {clip: find_transcript(clip) for clip in clips}
    results: list[ClipResult] = []
    with StepProgress() as progress:
        progress.begin("starting the stages")
        with StageHost(settings) as host:
            for clip in clips:
                tell = _named(progress, clip.name)
                with tempfile.TemporaryDirectory(prefix="dubstage-evaluate-") as folder:
                    session = PipelineSession(host, clip, clip.name, Path(folder), method, enrol_options, tell)
                    try:
                        result = evaluate_clip(
                            session,
                            StageRetrack(host),
                            settings=EvaluationSettings(variants=chosen, wrong_count=wrong_count),
                            transcript=transcripts[clip],
                            sync_distance=StageSyncDistance(host, session.speech, session.frame_seconds, Path(folder)),
                            perceptual=networks.accumulator if networks is not None else None,
                            progress=lambda _, done, total, tell=tell: tell("measure", done, total),  # type: ignore[misc]
                        )
                    finally:
                        session.close()
                results.append(result)
                if json_file is not None:
                    write_json(json_file, results, method)
    _show(results)
    if report is not None:
        from gateway.reports.evaluation_report import write_evaluation_report
        from gateway.reports.types import EvaluationReport

        page = write_evaluation_report(EvaluationReport(title="Self-re-enactment", method=method, clips=results), report)
        say_result(str(page))
    if json_file is not None:
        say_result(str(json_file))


def _named(progress: StepProgress, clip: str) -> Callable[[str, int, int], None]:
    return lambda step, done, total: progress(f"{clip}: {step}", done, total)


def _variants(text: str) -> tuple[Variant, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise InvalidRequest(f"--variants takes {', '.join(VARIANTS)}, not {', '.join(unknown) or 'nothing'}", field="variants")
    return tuple(variant for variant in VARIANTS if variant in names)


def _show(results: list[ClipResult]) -> None:
    width = err.width
    for result in results:
        say(f"{result.clip} (lag {result.lag_frames:+d} frames of 40 ms)")
        for line in score_lines(METRICS, {name: scores.metrics for name, scores in result.variants.items()}, width):
            say(line)
        if result.head_motion is not None:
            say("motion of the head")
            for line in score_lines(HEAD_FIGURES, result.head_motion.scores, width):
                say(line)
    for check in check_targets(results):
        if not check.passed:
            say_warning(f"below its target: {check}")
