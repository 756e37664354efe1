"""Files of `dubstage evaluate`: the clips that are meant, and a look at where the results go before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.evaluation.clip import chosen_clips
from gateway.evaluation.results import check_json_place
from gateway.reports.folder import check_report_folder


def clips_of(paths: Sequence[Path], splits: str) -> list[Path]:
    """Return the clips that paths name; with splits (names separated by commas), a folder stands for its films of these splits.

    Raises:
        InvalidRequest: a folder has no catalogue, or a split has no film.
    """
    return chosen_clips(paths, [name.strip() for name in splits.split(",") if name.strip()])


def check_places(inputs: Sequence[Path], json_file: Path | None, report: Path | None, *, overwrite: bool) -> None:
    """Check that the JSON file and the report can be written, and replace nothing that is read or that is not ours.

    Raises:
        InvalidRequest: one of them cannot be written, or would replace a file of other content.
    """
    if json_file is not None:
        check_json_place(json_file, inputs, overwrite=overwrite)
    if report is not None:
        check_report_folder(report, [*inputs, *([json_file] if json_file is not None else [])])
