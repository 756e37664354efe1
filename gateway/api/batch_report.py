"""The files of a batch's report, in pieces for a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from dubstage.gateway.v1alpha1 import batch_pb2 as pb
from gateway.ahead import in_thread
from gateway.api.batch_messages import Told, told_record, told_shot
from gateway.batch.report.page import write_report
from gateway.batch.report.rows import row_of, summary_of
from gateway.batch.report.tables import csv_of, json_of
from gateway.batch.store import BatchStore
from gateway.batch.types import BatchFacts, ShotRecord

PIECE_BYTES: Final = 256 << 10
"""Most bytes of one piece."""


def write_files(store: BatchStore, facts: BatchFacts, records: Sequence[ShotRecord], wanted: int, told: Told, folder: Path) -> None:
    """Write the files of a report. Blocks.

    Args:
        store: store of batches.
        facts: the batch.
        records: records of all its shots.
        wanted: number of ReportFormat.
        told: removes the server's folders from texts.
        folder: an empty folder.

    Raises:
        StorageFull: no space is left.
        DubstageError: the store of batches cannot be used.
    """
    shots = [told_shot(shot, told) for shot in store.manifest(facts.name)]
    shown = [told_record(record, told) for record in records]
    if wanted not in (pb.REPORT_FORMAT_CSV, pb.REPORT_FORMAT_JSON):
        write_report(facts, shots, shown, partial(store.thumbnail, facts.name), folder)
        return
    rows = [row_of(index, *of_shot, None) for index, of_shot in enumerate(zip(shots, shown, strict=True))]
    if wanted == pb.REPORT_FORMAT_CSV:
        (folder / "shots.csv").write_text(csv_of(rows), encoding="utf-8", errors="backslashreplace", newline="")
    else:
        (folder / "shots.json").write_text(json_of(facts, summary_of(rows, shown), rows), encoding="ascii")


async def pieces(folder: Path) -> AsyncGenerator[pb.GetReportResponse, None]:
    """Yield the files of a folder, the page first, each in pieces of at most PIECE_BYTES. An empty file has one empty piece."""
    found = sorted(path for path in await in_thread(lambda: list(folder.rglob("*"))) if path.is_file())
    for path in sorted(found, key=lambda one: one.suffix != ".html"):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            data = await in_thread(file.read, PIECE_BYTES)
            while True:
                yield pb.GetReportResponse(path=name, data=data)
                data = await in_thread(file.read, PIECE_BYTES)
                if not data:
                    break
