"""Options of `dubstage evaluate` that say which rows a table has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.cli.named_paths import named_paths
from gateway.evaluation.cases import Configuration, TableRow, ablation_rows, check_weights, method_rows, seconds_rows
from services.common.errors import InvalidRequest

_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class TableChoice:
    """Which rows a table has.

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

    def check(self, table: Path | None, report: Path | None) -> None:
        """Check that the options go together.

        Raises:
            InvalidRequest: options contradict each other; the message names them.
        """
        if table is None and (self.all_methods or self.ablation is not None or self.weights or self.enrol_seconds):
            raise InvalidRequest(
                "--all-methods, --ablation, --weights and --enrol-seconds make a table: name its file with --table FILE.md",
                field="table",
            )
        self._seconds()
        if self.all_methods and self.ablation is not None:
            raise InvalidRequest("give --all-methods or --ablation, not both", field="ablation")
        if table is not None and report is not None:
            raise InvalidRequest("--report shows one method: give --table or --report, not both", field="report")

    def rows(self, method: str, *, enrol_frames: int | None, personalize: bool) -> tuple[TableRow, ...]:
        """Return the rows; without --all-methods and --ablation the one row of a method. Each row for every length of enrolment.

        Raises:
            InvalidRequest: the method has no ablation.
        """
        rows = self._rows(method, enrol_frames=enrol_frames, personalize=personalize)
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
            raise InvalidRequest(
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
            InvalidRequest: a text is not NAME=FOLDER, no row has these weights, or the folder is missing.
        """
        folders = named_paths(self.weights, option="weights")
        check_weights(rows, folders)
        return folders
