"""Evaluations of the command line: one clip after the other, for one method or for the rows of a table.

A row that was evaluated before is not evaluated again.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway.cli.progress import StepProgress
from gateway.cli.values import named_paths, names_in
from gateway.dub.choices import EnrolOptions
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from research.evaluation.bilabials import find_transcript
from research.evaluation.clip import check_clip, chosen_clips
from research.evaluation.protocol import EvaluationSettings, PerceptualDistance, evaluate_clip
from research.evaluation.results import (
    Configuration,
    KeptResults,
    TableRow,
    ablation_rows,
    check_json_path,
    check_weights,
    clip_document,
    evaluation_key,
    method_rows,
    networks_of,
    seconds_rows,
    write_json,
)
from research.evaluation.session import PipelineSession
from research.evaluation.strips import check_strips_folder
from research.evaluation.sync import StageFaceDistance, StageRetrack, StageSyncDistance
from research.evaluation.table import TableRun, check_table_path, labels_of, overlaid
from research.evaluation.types import ClipResult, Variant
from research.stage_host import StageHost
from services.common.errors import DubstageError, InvalidRequestError
from services.common.methods import Finish

_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")


def clips_of(paths: Sequence[Path], splits: str) -> list[Path]:
    """Return the clips that paths name; with splits (names separated by commas), a folder stands for its videos of these splits.

    Raises:
        InvalidRequestError: a folder has no catalogue, or a split has no video.
    """
    return chosen_clips(paths, names_in(splits))


def check_outputs(
    inputs: Sequence[Path], json_file: Path | None, report: Path | None, strips: Path | None, *, overwrite: bool
) -> None:
    """Check that the JSON file, the report and the strips can be written, and replace nothing that is read or that is not ours.

    Raises:
        InvalidRequestError: one of them cannot be written, or would replace a file of other content.
    """
    if json_file is not None:
        check_json_path(json_file, inputs, overwrite=overwrite)
    if report is not None:
        check_report_folder(report, [*inputs, *([json_file] if json_file is not None else [])])
    if strips is not None:
        check_strips_folder(strips, overwrite=overwrite)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableChoice:
    """Rows of a table.

    Attributes:
        all_methods: one row a method of the table of methods.
        ablation: the method whose ablation it is; None: no ablation.
        weights: texts NAME=FOLDER: networks of rows that have their own.
        enrol_seconds: text "S,S,...": seconds of enrolment, a row for each; "": as clips are split otherwise.
    """

    all_methods: bool
    ablation: str | None
    weights: Sequence[str]
    enrol_seconds: str = ""

    def check(self, table: Path | None, report: Path | None, strips: Path | None) -> None:
        """Check that the options go together.

        Raises:
            InvalidRequestError: options contradict each other; the message names them.
        """
        if table is None and (self.all_methods or self.ablation is not None or self.weights or self.enrol_seconds):
            raise InvalidRequestError(
                "--all-methods, --ablation, --weights and --enrol-seconds make a table: name its file with --table FILE.md",
                field="table",
            )
        self._seconds()
        if self.all_methods and self.ablation is not None:
            raise InvalidRequestError("give --all-methods or --ablation, not both", field="ablation")
        if table is not None and report is not None:
            raise InvalidRequestError("--report shows one method: give --table or --report, not both", field="report")
        if table is not None and strips is not None:
            raise InvalidRequestError("--strips shows one method: give --table or --strips, not both", field="strips")

    def rows(
        self, method: str, *, enrol_frames: int | None, personalize: bool, finish: Finish | None = None
    ) -> tuple[TableRow, ...]:
        """Return the rows; without --all-methods and --ablation the one row of a method. Each row for every length of enrolment.

        Raises:
            InvalidRequestError: the method has no ablation.
        """
        rows = self._rows(method, enrol_frames=enrol_frames, personalize=personalize)
        if finish is not None:
            rows = tuple(TableRow(f"{row.label}, {finish}", replace(row.of, finish=finish), row.variant) for row in rows)
        return seconds_rows(rows, self._seconds())

    def _rows(self, method: str, *, enrol_frames: int | None, personalize: bool) -> tuple[TableRow, ...]:
        if self.ablation is not None:
            return ablation_rows(self.ablation, enrol_frames=enrol_frames, personalize=personalize)
        if self.all_methods:
            return method_rows(enrol_frames=enrol_frames, personalize=personalize)
        return (TableRow(method, Configuration(method=method, enrol_frames=enrol_frames, personalize=personalize)),)

    def _seconds(self) -> tuple[float, ...]:
        texts = [text.strip() for text in self.enrol_seconds.split(",") if text.strip()]
        if not all(_SECONDS.fullmatch(text) for text in texts):
            raise InvalidRequestError(
                f"--enrol-seconds takes numbers of seconds, such as 5,10,30, not {self.enrol_seconds[:80]!r}", field="enrol_seconds"
            )
        return tuple(dict.fromkeys(float(text) for text in texts))

    @property
    def title(self) -> str:
        """Heading of the table."""
        return "Self-re-enactment" if self.ablation is None else f"Ablation of {self.ablation}"

    def folders(self, rows: Sequence[TableRow]) -> dict[str, Path]:
        """Return the folders of networks by name.

        Raises:
            InvalidRequestError: a text is not NAME=FOLDER, no row has these weights, or the folder is missing.
        """
        folders = named_paths(self.weights, option="weights")
        check_weights(rows, folders)
        return folders


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest:
    """Clips and settings of an evaluation.

    Attributes:
        clips: videos with sound, each of one person who talks.
        method: name of the method.
        finish: whose pixels the mouths show; None: the method decides.
        variants: variants to render.
        wrong_count: number of other speeches for the variant wrong_audio.
        enrol: which parts of the enrolments are done.
        perceptual: makes an accumulator of LPIPS and FID for one variant; None: not measured.
        json_file: file that gets all figures after every clip; None: no file is written.
        enrol_frames: usable frames that each renderer is adapted with; None: all of the enrolment part.
        enrol_seconds: seconds of each enrolment part; None: as clips are split otherwise (folds.folds_of).
        strips: whether strips are kept.
        only_fold: number of the only fold of each clip, from 0; None: all.
        perceptual_sha256: digests of the files that `perceptual` measures with, by the name of the figure.
    """

    clips: list[Path]
    method: str
    variants: tuple[Variant, ...]
    wrong_count: int
    enrol: EnrolOptions
    perceptual: Callable[[], PerceptualDistance] | None
    json_file: Path | None
    finish: Finish | None = None
    enrol_frames: int | None = None
    enrol_seconds: float | None = None
    strips: bool = False
    only_fold: int | None = None
    perceptual_sha256: Mapping[str, str] = field(default_factory=dict)


def check_clips(clips: list[Path]) -> dict[Path, str]:
    """Check that all clips can be evaluated, and return their transcripts; "" for a clip without one.

    Raises:
        InvalidRequestError: a clip has no sound, or its transcript cannot be read.
        MediaUnsupportedError: a clip cannot be read as a video.
    """
    for clip in clips:
        check_clip(clip)
    return {clip: find_transcript(clip) for clip in clips}


def run_evaluation(settings: GatewaySettings, request: EvaluationRequest) -> list[ClipResult]:
    """Evaluate all clips, and return one result per clip. All clips are checked before the first clip is evaluated.

    Args:
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
            finish=request.finish,
            enrol_frames=request.enrol_frames,
            on_progress=tell,
        )
        try:
            return evaluate_clip(
                session,
                StageRetrack(host),
                settings=EvaluationSettings(
                    variants=request.variants,
                    wrong_count=request.wrong_count,
                    enrol_seconds=request.enrol_seconds,
                    strips=request.strips,
                    only_fold=request.only_fold,
                ),
                transcript=transcript,
                sync_distance=StageSyncDistance(host, session.speech, session.frame_seconds, Path(folder)),
                face_distance=StageFaceDistance(host),
                perceptual=request.perceptual,
                progress=lambda _, done, total: tell("measure", done, total),
            )
        finally:
            session.close()


def write_table(settings: GatewaySettings, each: EvaluationRequest, choice: TableChoice, table: Path, *, overwrite: bool) -> None:
    """Evaluate what the rows need and the file of results lacks, and write the table after every clip.

    A clip on which a row cannot be evaluated is named below the table, with the reason.

    Args:
        each: what every evaluation has in common; its `json_file` keeps the results.
        choice: the rows.
        table: Markdown file.
        overwrite: whether files of other content are replaced.

    Raises:
        InvalidRequestError: a clip, a folder of weights or the path of a file is wrong.
        DubstageError: the stages cannot be started.
    """
    assert each.json_file is not None, "a table keeps its results"
    rows = choice.rows(each.method, enrol_frames=each.enrol_frames, personalize=each.enrol.personalize_renderer, finish=each.finish)
    folders = choice.folders(rows)
    if folders and settings.endpoint("render"):
        raise InvalidRequestError("--weights needs stages in this process: leave out --stages", field="weights")
    check_table_path(table, each.json_file, overwrite=overwrite)
    transcripts = check_clips(each.clips)
    kept = KeptResults(each.json_file, overwrite=overwrite)
    run = TableRun(choice.title, rows, each.variants, table, kept)
    with StepProgress() as progress:
        for name in run.weights:
            if name and name not in folders:
                run.lack(name, f"its networks were not given: train and export them, then give --weights {name}=FOLDER")
                continue
            progress.begin(f"starting the stages {name}".rstrip())
            with overlaid(folders.get(name)), StageHost(settings) as host:
                fill_table(host, run, name, each, transcripts, kept, progress)
    run.write()


def fill_table(
    host: StageHost,
    run: TableRun,
    weights: str,
    each: EvaluationRequest,
    transcripts: Mapping[Path, str],
    kept: KeptResults,
    progress: StepProgress,
) -> None:
    """Evaluate all configurations of a table with the networks that the stages serve now.

    A clip that was evaluated before is not evaluated again. The table is written after every clip.

    Args:
        host: runs the stages, with the networks `weights`.
        run: the table.
        weights: name of the networks; "": the installation's own.
        each: what every evaluation has in common.
        transcripts: words of the clips; "": unknown.
        kept: what was evaluated before.
        progress: shows the steps.

    Raises:
        InvalidRequestError: a file of the table cannot be written.
    """
    labels = labels_of(each.clips)
    cases = [(of, variants, clip) for of, variants in run.configurations(weights).items() for clip in each.clips]
    for number, (of, variants, clip) in enumerate(cases):
        progress(f"evaluations {weights}".rstrip(), number, len(cases))
        try:
            key = evaluation_key(clip, of, _asked(each, variants, transcripts[clip]), host.run(networks_of(host.stages, of.method)))
            document = kept.get(key)
            if document is None:
                asked = replace(
                    each,
                    method=of.method,
                    finish=of.finish,
                    variants=variants,
                    enrol_frames=of.enrol_frames,
                    enrol_seconds=of.enrol_seconds,
                    enrol=replace(
                        each.enrol,
                        personalize_renderer=of.personalize,
                        personalize_motion=of.personalize,
                        renderer_steps=of.steps,
                    ),
                )
                document = clip_document(evaluate_on(host, asked, clip, transcripts[clip], progress))
                kept.add(key, of, document)
        except DubstageError as problem:
            run.refuse(of, labels[clip], str(problem))
            continue
        run.add(of, labels[clip], document)
        run.write()
    progress(f"evaluations {weights}".rstrip(), len(cases), len(cases))


def _asked(each: EvaluationRequest, variants: Sequence[Variant], transcript: str) -> dict[str, Any]:
    """Return what the figures of a clip depend on besides the clip, the configuration and the method's networks."""
    return {
        "variants": list(variants),
        "seed": each.enrol.seed,
        "wrong_count": each.wrong_count,
        "transcript": transcript,
        "perceptual": dict(each.perceptual_sha256),
        **({} if each.only_fold is None else {"only_fold": each.only_fold}),
    }
