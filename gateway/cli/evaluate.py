"""`dubstage evaluate`: self-re-enactment of clips, with metrics, intervals and a report."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.app import app
from gateway.cli.console import StepProgress, err, out, say_warning
from gateway.evaluation.bilabials import find_transcript
from gateway.evaluation.head_scores import HEAD_FIGURES
from gateway.evaluation.perceptual import SuppliedNetworks
from gateway.evaluation.protocol import EvaluationSettings, evaluate_clip
from gateway.evaluation.result_json import write_json
from gateway.evaluation.sync import StageSyncDistance
from gateway.evaluation.targets import check_targets
from gateway.evaluation.types import METRICS, VARIANTS, ClipResult, Variant
from gateway.methods import combined
from gateway.pipeline.enrol import EnrolOptions
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequest
from services.common.settings import load_settings


@app.command("evaluate")
def evaluate(
    clips: Annotated[list[Path], typer.Argument(help="videos of one talking person, with their sound")],
    method: Annotated[str, typer.Option(help="row of the method table")] = "ugc",
    motion: Annotated[str | None, typer.Option(help="another method's motion predictor")] = None,
    renderer: Annotated[str | None, typer.Option(help="another method's renderer")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="results")] = None,
    report: Annotated[Path | None, typer.Option(help="folder for an HTML report")] = None,
    variants: Annotated[str, typer.Option(help="comma-separated; all without it")] = ",".join(VARIANTS),
    wrong_count: Annotated[int, typer.Option(help="foreign speeches for wrong_audio, at least 10")] = 10,
    personalize: Annotated[bool, typer.Option(help="adapt the networks to each enrolment part")] = True,
    seed: Annotated[int, typer.Option(help="of the adaptation")] = 0,
    lpips_weights: Annotated[Path | None, typer.Option(help="TorchScript file of an LPIPS network")] = None,
    fid_weights: Annotated[Path | None, typer.Option(help="TorchScript file of an Inception network")] = None,
    stages: Annotated[str | None, typer.Option(help="host of running stages; without it, all in this process")] = None,
) -> None:
    """Personalise on one part of each CLIP, dub the rest with its own sound, and compare with the truth.

    A transcript for closure on p, b, m is taken from CLIP.txt or CLIP.align, or from a catalogue.csv in a folder above the clip.
    """
    from gateway.evaluation.session import PipelineSession, StageRetrack
    from gateway.stages.host import StageHost

    method = combined(method, motion, renderer)
    chosen = _variants(variants)
    settings = load_settings(GatewaySettings, stages_host=stages)
    options = EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize, seed=seed)
    networks = SuppliedNetworks(lpips_weights, fid_weights) if lpips_weights or fid_weights else None
    results: list[ClipResult] = []
    with StageHost(settings) as host, StepProgress() as progress:
        for clip in clips:
            with tempfile.TemporaryDirectory(prefix="dubstage-evaluate-") as folder:
                session = PipelineSession(host, clip, clip.name, Path(folder), method, options)
                try:
                    result = evaluate_clip(
                        session,
                        StageRetrack(host),
                        settings=EvaluationSettings(variants=chosen, wrong_count=wrong_count),
                        transcript=find_transcript(clip),
                        sync_distance=StageSyncDistance(host, session.speech, session.frame_seconds, Path(folder)),
                        perceptual=networks.accumulator if networks is not None else None,
                        progress=lambda _, done, total, name=clip.name: progress(name, done, total),  # type: ignore[misc]
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
        out.print(str(page))
    if json_file is not None:
        out.print(str(json_file))


def _variants(text: str) -> tuple[Variant, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise InvalidRequest(f"--variants takes {', '.join(VARIANTS)}, not {', '.join(unknown) or 'nothing'}", field="variants")
    return tuple(variant for variant in VARIANTS if variant in names)


def _show(results: list[ClipResult]) -> None:
    for result in results:
        table = Table("variant", *METRICS, title=f"{result.clip} (lag {result.lag_frames:+d})", box=None)
        for variant, scores in result.variants.items():
            table.add_row(variant, *(f"{scores.metrics[name]:.3f}" for name in METRICS))
        err.print(table)
        if result.head_motion is not None:
            heads = Table("motion of the head", *HEAD_FIGURES, box=None)
            for row, figures in result.head_motion.scores.items():
                heads.add_row(row, *(f"{figures[name]:.3f}" for name in HEAD_FIGURES))
            err.print(heads)
    for check in check_targets(results):
        if not check.passed:
            say_warning(f"below its target: {check}")
