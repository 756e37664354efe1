"""An evaluation of the command line: all clips, one after the other, with the stages that the settings name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.progress import StepProgress
from gateway.evaluation.bilabials import find_transcript
from gateway.evaluation.clip import check_clip
from gateway.evaluation.protocol import EvaluationSettings, PerceptualDistance, evaluate_clip
from gateway.evaluation.result_json import write_json
from gateway.evaluation.retrack import StageRetrack
from gateway.evaluation.session import PipelineSession
from gateway.evaluation.sync import StageSyncDistance
from gateway.evaluation.types import ClipResult, Variant
from gateway.pipeline.enrol import EnrolOptions
from gateway.settings import GatewaySettings
from gateway.stages.host import StageHost


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest:
    """What is evaluated, and how.

    Attributes:
        clips: videos with sound, each of one person who talks.
        method: name of the method.
        variants: variants to render.
        wrong_count: number of other speeches for the variant wrong_audio.
        enrol: which parts of the enrolments are done.
        perceptual: makes an accumulator of LPIPS and FID for one variant; None: not measured.
        json_file: file that gets all figures after every clip; None: no file is written.
    """

    clips: list[Path]
    method: str
    variants: tuple[Variant, ...]
    wrong_count: int
    enrol: EnrolOptions
    perceptual: Callable[[], PerceptualDistance] | None
    json_file: Path | None


def run_evaluation(settings: GatewaySettings, request: EvaluationRequest) -> list[ClipResult]:
    """Evaluate all clips, and return one result per clip. All clips are checked before the first clip is evaluated.

    Args:
        settings: settings of the command.
        request: what is evaluated.

    Raises:
        DubstageError: a clip was refused, or its evaluation failed.
    """
    for clip in request.clips:
        check_clip(clip)
    transcripts = {clip: find_transcript(clip) for clip in request.clips}
    results: list[ClipResult] = []
    with StepProgress() as progress:
        progress.begin("starting the stages")
        with StageHost(settings) as host:
            for clip in request.clips:
                results.append(_evaluate(host, request, clip, transcripts[clip], progress))
                if request.json_file is not None:
                    write_json(request.json_file, results, request.method)
    return results


def _evaluate(host: StageHost, request: EvaluationRequest, clip: Path, transcript: str, progress: StepProgress) -> ClipResult:
    def tell(step: str, done: int, total: int) -> None:
        progress(f"{clip.name}: {step}", done, total)

    with tempfile.TemporaryDirectory(prefix="dubstage-evaluate-") as folder:
        session = PipelineSession(host, clip, clip.name, Path(folder), request.method, request.enrol, on_progress=tell)
        try:
            return evaluate_clip(
                session,
                StageRetrack(host),
                settings=EvaluationSettings(variants=request.variants, wrong_count=request.wrong_count),
                transcript=transcript,
                sync_distance=StageSyncDistance(host, session.speech, session.frame_seconds, Path(folder)),
                perceptual=request.perceptual,
                progress=lambda _, done, total: tell("measure", done, total),
            )
        finally:
            session.close()
