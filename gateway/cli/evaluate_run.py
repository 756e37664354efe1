"""An evaluation of the command line: all clips, one after the other, with the stages that the settings name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.cli.progress import StepProgress
from gateway.dub.enrol import EnrolOptions
from gateway.evaluation.bilabials import find_transcript
from gateway.evaluation.clip import check_clip
from gateway.evaluation.protocol import EvaluationSettings, PerceptualDistance, evaluate_clip
from gateway.evaluation.results import write_json
from gateway.evaluation.session import PipelineSession
from gateway.evaluation.sync import StageRetrack, StageSyncDistance
from gateway.evaluation.types import ClipResult, Variant
from gateway.settings import GatewaySettings
from gateway.stages.opening import StageHost


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
        enrol_frames: usable frames that each renderer is adapted with; None: all of the enrolment part.
        enrol_seconds: seconds of each enrolment part; None: as clips are split otherwise (folds.folds_of).
        perceptual_sha256: digests of the files that `perceptual` measures with, by the name of the figure.
    """

    clips: list[Path]
    method: str
    variants: tuple[Variant, ...]
    wrong_count: int
    enrol: EnrolOptions
    perceptual: Callable[[], PerceptualDistance] | None
    json_file: Path | None
    enrol_frames: int | None = None
    enrol_seconds: float | None = None
    perceptual_sha256: Mapping[str, str] = field(default_factory=dict)


def check_clips(clips: list[Path]) -> dict[Path, str]:
    """Check that all clips can be evaluated, and return their transcripts; "" for a clip without one.

    Raises:
        InvalidRequest: a clip has no sound, or its transcript cannot be read.
        MediaUnsupported: a clip cannot be read as a film.
    """
    for clip in clips:
        check_clip(clip)
    return {clip: find_transcript(clip) for clip in clips}


def run_evaluation(settings: GatewaySettings, request: EvaluationRequest) -> list[ClipResult]:
    """Evaluate all clips, and return one result per clip. All clips are checked before the first clip is evaluated.

    Args:
        settings: settings of the command.
        request: what is evaluated.

    Raises:
        DubstageError: a clip was refused, or its evaluation failed.
    """
    transcripts = check_clips(request.clips)
    results: list[ClipResult] = []
    with StepProgress() as progress:
        progress.begin("starting the stages")
        with StageHost(settings) as host:
            for clip in request.clips:
                results.append(evaluate_on(host, request, clip, transcripts[clip], progress))
                if request.json_file is not None:
                    write_json(request.json_file, results, request.method)
    return results


def evaluate_on(host: StageHost, request: EvaluationRequest, clip: Path, transcript: str, progress: StepProgress) -> ClipResult:
    """Evaluate one clip with stages that run.

    Args:
        host: runs the stages.
        request: what is evaluated.
        clip: the clip.
        transcript: words of the clip; "": unknown.
        progress: shows the steps.

    Raises:
        DubstageError: the clip was refused, or its evaluation failed.
    """

    def tell(step: str, done: int, total: int) -> None:
        progress(f"{clip.name}: {step}", done, total)

    with tempfile.TemporaryDirectory(prefix="dubstage-evaluate-") as folder:
        session = PipelineSession(
            host,
            clip,
            clip.name,
            Path(folder),
            request.method,
            request.enrol,
            enrol_frames=request.enrol_frames,
            on_progress=tell,
        )
        try:
            return evaluate_clip(
                session,
                StageRetrack(host),
                settings=EvaluationSettings(
                    variants=request.variants, wrong_count=request.wrong_count, enrol_seconds=request.enrol_seconds
                ),
                transcript=transcript,
                sync_distance=StageSyncDistance(host, session.speech, session.frame_seconds, Path(folder)),
                perceptual=request.perceptual,
                progress=lambda _, done, total: tell("measure", done, total),
            )
        finally:
            session.close()
