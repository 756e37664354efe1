"""A table that grows evaluation by evaluation: what its rows need, what is known of them, and the files of the table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.evaluation.cases import Configuration, TableRow
from gateway.evaluation.kept_results import KeptResults
from gateway.evaluation.result_file import check_writable, told, write_whole
from gateway.evaluation.table import FilledRow, Refused, figures_of, is_table, markdown, rows_document
from gateway.evaluation.types import VARIANTS, Variant
from services.common.errors import InvalidRequest

ENDING: Final = ".md"


class TableRun:
    """The rows of a table with what is known of them.

    Args:
        title: heading of the table.
        rows: the rows.
        variants: variants that every row needs; a row needs its own variant too.
        path: Markdown file.
        kept: file of results.
    """

    def __init__(self, title: str, rows: Sequence[TableRow], variants: Sequence[Variant], path: Path, kept: KeptResults) -> None:
        self._title = title
        self._rows = rows
        self._variants = variants
        self._path = path
        self._kept = kept
        self._documents: dict[Configuration, dict[str, dict[str, Any]]] = {}
        self._refused: dict[Configuration, list[Refused]] = {}
        self._missing: dict[str, str] = {}

    def configurations(self, weights: str) -> dict[Configuration, tuple[Variant, ...]]:
        """Return what is evaluated with these weights ("": the installation's), each with its variants in the order of VARIANTS."""
        wanted: dict[Configuration, set[Variant]] = {}
        for row in self._rows:
            if row.of.weights == weights:
                wanted.setdefault(row.of, set(self._variants)).add(row.variant)
        return {of: tuple(variant for variant in VARIANTS if variant in names) for of, names in wanted.items()}

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights that rows have, the installation's ("") among them."""
        return tuple(dict.fromkeys(row.of.weights for row in self._rows))

    def add(self, of: Configuration, clip: str, document: Mapping[str, Any]) -> None:
        """Add the document (result_json.clip_document) of one clip, which has a label of its own (`labels_of`)."""
        self._documents.setdefault(of, {})[clip] = dict(document)

    def refuse(self, of: Configuration, clip: str, reason: str) -> None:
        """Add a clip that cannot be evaluated, by its label."""
        self._refused.setdefault(of, []).append(Refused(clip, reason))

    def lack(self, weights: str, reason: str) -> None:
        """Say why rows with these weights have no figures."""
        self._missing[weights] = reason

    def filled(self) -> tuple[FilledRow, ...]:
        """Return the rows with their figures."""
        return tuple(
            FilledRow(
                row=row,
                per_clip={clip: figures_of(found, row.variant) for clip, found in self._documents.get(row.of, {}).items()},
                refused=tuple(self._refused.get(row.of, ())),
                missing=self._missing.get(row.of.weights, ""),
            )
            for row in self._rows
        )

    def write(self) -> None:
        """Write the Markdown file and the file of results.

        Raises:
            InvalidRequest: a file cannot be written.
        """
        rows = self.filled()
        self._kept.write(rows_document(rows))
        write_whole(self._path, markdown(self._title, rows), "table")


def labels_of(clips: Sequence[Path]) -> dict[Path, str]:
    """Return what a table calls each clip: the file name, or the shortest end of the path that no other clip has."""
    parts = {clip: Path(os.path.abspath(clip)).parts for clip in clips}
    endings = Counter(each[-length:] for each in set(parts.values()) for length in range(1, len(each) + 1))
    return {
        clip: str(Path(*next(own[-length:] for length in range(1, len(own) + 1) if endings[own[-length:]] == 1)))
        for clip, own in parts.items()
    }


def check_table_place(path: Path, results: Path, *, overwrite: bool = False) -> None:
    """Check that a table can be written to a place: a new Markdown file, or one that holds an older table.

    Args:
        path: the Markdown file.
        results: the JSON file of its results.
        overwrite: allow to replace a file of any content.

    Raises:
        InvalidRequest: the name does not end with .md, is the name of the results, is no file, is a file that no table wrote, or
            cannot be written.
    """
    if path.suffix != ENDING:
        raise InvalidRequest(f"{path} does not end with {ENDING}: the table is Markdown", field="table")
    if os.path.realpath(path) == os.path.realpath(results):
        raise InvalidRequest(f"{path} cannot hold the table and its figures; give --table and --json two names", field="table")
    with told(path, "table"):
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"{path} is not a file; give the name of a Markdown file", field="table")
        if path.exists() and not overwrite and not is_table(path.read_text(encoding="utf-8", errors="replace")):
            raise InvalidRequest(
                f"{path} exists, and no table wrote it; give another name, or replace it with --overwrite", field="table"
            )
    check_writable(path, "table")
