"""The report of a batch: FOLDER/index.html, FOLDER/shots.csv, FOLDER/shots.json and FOLDER/thumbnails."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gateway.batch.report.rows import Row, concerns_of, row_of, summary_of
from gateway.batch.report.tables import csv_of, json_of
from gateway.batch.types import BatchFacts, Shot, ShotRecord
from gateway.reports.folder import PAGE, check_report_folder, report_folder
from gateway.reports.pages import render_page
from gateway.reports.strip import ReasonCount, shares_of

SHOWN_CONCERNS: Final = 50
"""Most texts of the section for a person."""
SHOWN_SHOTS: Final = 12
"""Most shots that the section names for one text."""
_READERS: Final = 8
"""Threads that read thumbnails at the same time. A store over a network answers one in some ten milliseconds."""
_SCRIPT: Final = Path(__file__).with_name("sort.js")


def write_report(
    facts: BatchFacts,
    shots: Sequence[Shot],
    records: Sequence[ShotRecord],
    thumbnail: Callable[[str], bytes | None],
    folder: Path,
) -> Path:
    """Write the report of a batch, all files of it or none, and return the path of the page.

    The page asks for nothing over the network, and its script may not either. Links to films are relative to the folder, so
    that the report and the films can be moved or shared together. The same arguments give the same bytes.

    Args:
        facts: what the batch is.
        shots: rows of the manifest.
        records: what is known of each shot, in the order of `shots`.
        thumbnail: gives the JPEG file of a shot by its id; None: there is none. It is called from several threads, for shots
            with `has_thumbnail` only.
        folder: gets the page, the tables and the pictures. An older report in it is replaced.

    Raises:
        InvalidRequest: `folder` cannot be written, or holds other files than a report.
        StorageFull: no space is left.
        DubstageError: `thumbnail` failed.
    """
    check_report_folder(folder)
    with report_folder(folder) as inside:
        (inside / "thumbnails").mkdir()
        with ThreadPoolExecutor(_READERS) as pool:
            pictures = list(pool.map(partial(_write_thumbnail, thumbnail, inside), records))
        rows = [row_of(index, *of_shot) for index, of_shot in enumerate(zip(shots, records, pictures, strict=True))]
        summary = summary_of(rows, records)
        (inside / "shots.csv").write_text(csv_of(rows), encoding="utf-8", errors="backslashreplace", newline="")
        (inside / "shots.json").write_text(json_of(facts, summary, rows), encoding="ascii")
        concerns, script = concerns_of(rows), _SCRIPT.read_text(encoding="utf-8")
        values = {
            "report": {"title": f"Batch {facts.name}"},
            "facts": facts,
            "summary": summary,
            "concerns": concerns[:SHOWN_CONCERNS],
            "more_concerns": len(concerns[SHOWN_CONCERNS:]),
            "shown_shots": SHOWN_SHOTS,
            "rows": rows,
            "reasons_of": _reasons_of,
            "link_of": partial(_link_of, folder),
            "duration": duration,
            "script": script,
            "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        }
        render_page("batch.html.j2", values, inside)
    return folder / PAGE


def duration(seconds: float | None) -> str:
    """Return a time as text for a table, such as `4.2 s`, `3:07` (minutes) or `12:00:05` (hours); a dash if it is unknown."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _write_thumbnail(thumbnail: Callable[[str], bytes | None], folder: Path, record: ShotRecord) -> str | None:
    picture = thumbnail(record.id) if record.has_thumbnail else None
    if picture is None:
        return None
    name = f"thumbnails/{record.id}.jpg"
    (folder / name).write_bytes(picture)
    return name


def _reasons_of(row: Row) -> tuple[ReasonCount, ...]:
    return shares_of(row.frames_by_reason)


def _link_of(folder: Path, row: Row) -> str:
    """Return the URL of a film on a disk, relative to the report's folder; empty: the film is elsewhere, or there is none yet."""
    if not row.output_sha256 or not row.output.startswith("/"):
        return ""
    return quote(os.fsencode(os.path.relpath(row.output, folder)))
