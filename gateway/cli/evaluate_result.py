"""Tables that `dubstage evaluate` prints, and the HTML report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.cli.console import err, say, say_result, say_warning
from gateway.cli.quantities import sound_against_picture
from gateway.cli.score_tables import score_lines
from gateway.evaluation.head_motion import HEAD_FIGURES
from gateway.evaluation.targets import check_targets
from gateway.evaluation.types import METRICS, ClipResult


def show_results(results: Sequence[ClipResult], method: str, report: Path | None, json_file: Path | None) -> None:
    """Print the scores, write the report if a folder is given, and name the files that were written.

    Raises:
        InvalidRequest, StorageFull: the folder of the report cannot be written.
    """
    show_scores(results)
    show_files(save_evaluation_report(results, method, report) if report is not None else None, json_file)


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
        InvalidRequest, StorageFull: the folder cannot be written.
    """
    from gateway.reports.evaluation_report import write_evaluation_report
    from gateway.reports.types import EvaluationReport

    return write_evaluation_report(EvaluationReport(title="Self-re-enactment", method=method, clips=results), folder)
