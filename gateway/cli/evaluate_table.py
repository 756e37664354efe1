"""Tables of evaluations: all methods, or the ablation of one, over all clips. What was evaluated is not evaluated again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.cli.evaluate_run import EvaluationRequest, check_clips, evaluate_on
from gateway.cli.progress import StepProgress
from gateway.cli.table_choice import TableChoice
from gateway.evaluation.results import KeptResults, clip_document, evaluation_key, networks_of
from gateway.evaluation.table import TableRun, check_table_place, labels_of, overlaid
from gateway.evaluation.types import Variant
from gateway.settings import GatewaySettings
from gateway.stages.opening import StageHost
from services.common.errors import DubstageError, InvalidRequest


def write_table(settings: GatewaySettings, each: EvaluationRequest, choice: TableChoice, table: Path, *, overwrite: bool) -> None:
    """Evaluate what the rows need and the file of results lacks, and write the table after every clip.

    A clip on which a row cannot be evaluated is named below the table, with the reason.

    Args:
        settings: settings of the command.
        each: what every evaluation has in common; its `json_file` keeps the results.
        choice: the rows.
        table: Markdown file.
        overwrite: whether files of other content are replaced.

    Raises:
        InvalidRequest: a clip, a folder of weights or a place of a file is wrong.
        DubstageError: the stages cannot be started.
    """
    assert each.json_file is not None, "a table keeps its results"
    rows = choice.rows(each.method, enrol_frames=each.enrol_frames, personalize=each.enrol.personalize_renderer)
    folders = choice.folders(rows)
    if folders and settings.endpoint("render"):
        raise InvalidRequest("--weights needs stages in this process: leave out --stages", field="weights")
    check_table_place(table, each.json_file, overwrite=overwrite)
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
                _fill(host, run, name, each, transcripts, kept, progress)
    run.write()


def _fill(
    host: StageHost,
    run: TableRun,
    weights: str,
    each: EvaluationRequest,
    transcripts: Mapping[Path, str],
    kept: KeptResults,
    progress: StepProgress,
) -> None:
    """Evaluate all configurations with the networks that the stages serve now."""
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
    }
