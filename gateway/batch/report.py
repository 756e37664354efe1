"""The report of a batch: a page, a table and a JSON document with the same facts of every shot.

Files: FOLDER/index.html, FOLDER/shots.csv, FOLDER/shots.json and FOLDER/thumbnails.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from gateway.batch.lists import ListedShot
from gateway.batch.records import covered_s, unix_time
from gateway.batch.reviews import ReviewState
from gateway.batch.risk import figures_of, reasons_of, risk_of
from gateway.batch.types import ENDED, WRITTEN, BatchFacts, ShotAppearance, ShotMotion, ShotState
from gateway.dub.request.spec_text import actor_of, speaker_of, start_text
from gateway.reports.folder import PAGE, check_report_folder, report_folder
from gateway.reports.pages import ReasonCount, render_page, shares_of
from gateway.safe_paths import path_below

_NUMBER: Final = re.compile(r"(?<![\w.])-?\d*\.?\d+")
FORMAT: Final = 1
"""Version of the two files. A release that renames or removes a column counts up."""
_FORMULA: Final = frozenset("=+-@\uff1d\uff0b\uff0d\uff20|%")
"""Characters that make a spreadsheet program take a text for a formula or a command."""
_BLANKS: Final = "\t\r\n\0 "
_PLAIN: Final = frozenset({int, float, NoneType})
"""Types whose values `csv` writes as `safe_cell` does."""
SHOWN_CONCERNS: Final = 50
"""Most texts of the section for a person."""
SHOWN_SHOTS: Final = 12
"""Most shots that the section names for one text."""
MOST_ROWS: Final = 5_000
"""Most shots of the page. A browser cannot show many more. The tables have all shots."""
_PICTURES_AT_ONCE: Final = 100
"""Most pictures that are in memory at once."""
_NO_MOTION: Final = ShotMotion()
_NO_APPEARANCE: Final = ShotAppearance()
_ENCODER: Final = json.JSONEncoder(allow_nan=False, check_circular=False)
_SCRIPT: Final = Path(__file__).with_name("sort.js")


class ReportRow(NamedTuple):
    """One shot of a batch. The names of the fields are the columns of `shots.csv` and the keys of `shots.json`, in this order.

    Attributes:
        index: number of the shot's row in the manifest, from 0, as `dubstage batch run --index` takes it.
        id: id of the shot.
        state: state of the shot.
        needs_look: whether a person must look at the shot: it failed, no frame is dubbed, or the quality gate marked it.
        look: why: no frame is dubbed, or the reasons of the quality gate.
        risk: how urgently a person should look at the video, 0 to 1 (`gateway/batch/risk.py`); None: the shot has not ended.
        risk_reasons: why, the strongest reason first.
        review: state of the decision about the present video; None: the shot has not ended.
        reviewer: who decided; empty: nobody.
        reviewed_at: time of the decision, RFC 3339; empty: none.
        note: note of the decision; empty: none.
        assignee: who is to look at the video; empty: nobody.
        method: method that dubbed the shot; before that, the method of the manifest.
        r_opening: correlation of the target and the drawn opening of the mouth, -1 to 1; None: not measured.
        silence_opening, opening_spread, width_spread, fastest_step, vowel_shift_ms, closure_shift_ms: as in ShotMotion; None: not
            measured.
        tint_alarms, nostril_alarms, low_contrast, popping, clothing_moved, face_distance: as in ShotAppearance; None: not measured.
        frames: frames of the video.
        frames_dubbed: frames with a new mouth.
        dubbed_share: `frames_dubbed` over `frames`, 0 to 1; None: the video has no frames yet.
        frames_by_reason: number of frames by what happened to them.
        warnings: warnings of the dub.
        seconds: time of the last attempt that ended, seconds.
        frames_per_second: `frames` over `seconds`; None: not known.
        attempts: times that a worker has begun the shot.
        worker: worker of the last attempt.
        begun_at: begin of the last attempt, RFC 3339, UTC; empty: not yet.
        ended_at: end of the last attempt, RFC 3339, UTC; empty: not yet.
        exit_code: exit code of the last attempt; None: no attempt has ended.
        error: message of the error of the last attempt; empty: none.
        footage: footage of the manifest.
        speech: speech of the manifest; None: not named.
        say: words of the manifest, which a command has spoken; None: none.
        actor: actor of the manifest; None: not named.
        lines: lines of a scene: start, who speaks, and speech.
        output: path or URL of the video.
        output_sha256: digest of the video; empty: there is no video yet.
        thumbnail: path of the picture in the report's folder; None: there is none.
    """

    index: int  # type: ignore[assignment]  # in place of the method of tuples
    id: str
    state: ShotState
    needs_look: bool
    look: tuple[str, ...]
    risk: float | None
    risk_reasons: tuple[str, ...]
    review: ReviewState | None
    reviewer: str
    reviewed_at: str
    note: str
    assignee: str
    method: str
    r_opening: float | None
    silence_opening: float | None
    opening_spread: float | None
    width_spread: float | None
    fastest_step: float | None
    vowel_shift_ms: float | None
    closure_shift_ms: float | None
    tint_alarms: float | None
    nostril_alarms: float | None
    low_contrast: float | None
    popping: float | None
    clothing_moved: float | None
    face_distance: float | None
    frames: int
    frames_dubbed: int
    dubbed_share: float | None
    frames_by_reason: Mapping[str, int]
    warnings: tuple[str, ...]
    seconds: float
    frames_per_second: float | None
    attempts: int
    worker: str
    begun_at: str
    ended_at: str
    exit_code: int | None
    error: str
    footage: str
    speech: str | None
    say: str | None
    actor: str | None
    lines: tuple[str, ...]
    output: str
    output_sha256: str
    thumbnail: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Sums over a batch.

    Attributes:
        shots: number of shots.
        states: number of shots by state, in the order of a shot's life; every state has its number.
        need_look: shots that a person must look at.
        frames, frames_dubbed: sums over the finished shots.
        shot_seconds: time of the last attempts of all shots, added up.
        seconds: time in which at least one of the finished shots was worked on; None: no shot is done.
        frames_per_second: `frames` over `seconds`, of all workers together; None: no shot is done.
    """

    shots: int
    states: Mapping[str, int]
    need_look: int
    frames: int
    frames_dubbed: int
    shot_seconds: float
    seconds: float | None
    frames_per_second: float | None


class Mention(NamedTuple):
    """A shot that a concern names.

    Attributes:
        order: position among the shots of the concern; shots of one position stand in the order of the manifest.
        row: row of the manifest, from 0.
        id: id of the shot.
    """

    order: float
    row: int
    id: str


@dataclass(frozen=True, slots=True)
class Concern:
    """One text that wants a person's look, and the shots that have it.

    Attributes:
        failed: the text is an error of failed shots; otherwise it is a reason of the quality gate.
        text: the error with FOOTAGE, SPEECH and VIDEO for the shot's own files, or the reason with `…` for each number that was
            measured: shots with the same fault stand together.
        shots: the shots: failed ones in the order of the manifest, others with the least `r_opening` first.
    """

    failed: bool
    text: str
    shots: tuple[Mention, ...]


def row_of(listed: ListedShot, thumbnail: str | None) -> ReportRow:
    """Return the row of a shot.

    Args:
        listed: the shot.
        thumbnail: path of the shot's picture in the report's folder; None: there is none.
    """
    index, shot, record, decision = listed
    has_ended, figures = record.state in ENDED, figures_of(record)
    return ReportRow(
        index=index,
        id=shot.id,
        state=record.state,
        needs_look=record.state in (ShotState.FAILED, ShotState.UNDUBBED) or bool(record.look),
        look=record.look,
        risk=risk_of(record, figures) if has_ended else None,
        risk_reasons=tuple(reasons_of(record, figures)) if has_ended else (),
        review=(decision.state if decision is not None else ReviewState.UNDECIDED) if has_ended else None,
        reviewer=decision.reviewer if decision is not None else "",
        reviewed_at=decision.decided_at if decision is not None else "",
        note=decision.note if decision is not None else "",
        assignee=decision.assignee if decision is not None else "",
        method=record.method or shot.dub.method,
        r_opening=_rounded(record.r_opening),
        **vars(record.motion or _NO_MOTION),
        **vars(record.appearance or _NO_APPEARANCE),
        frames=record.frames,
        frames_dubbed=record.frames_dubbed,
        dubbed_share=_ratio(record.frames_dubbed, record.frames),
        frames_by_reason=record.frames_by_reason,
        warnings=record.warnings,
        seconds=_rounded(record.seconds) or 0.0,
        frames_per_second=_ratio(record.frames, record.seconds) if record.frames else None,
        attempts=record.attempts,
        worker=record.worker,
        begun_at=record.begun_at,
        ended_at=record.ended_at,
        exit_code=record.exit_code,
        error=record.error,
        footage=shot.dub.footage_uri,
        speech=shot.dub.speech_uri or None,
        say=shot.words.say if shot.words is not None else None,
        actor=actor_of(shot.dub) or None,
        lines=tuple(f"{start_text(line)} {speaker_of(line)} {line.speech_uri}" for line in shot.dub.lines),
        output=record.output or shot.output,
        output_sha256=record.output_sha256,
        thumbnail=thumbnail,
    )


class Overview:
    """Facts of all shots together. Rows are added one after the other, and at most twice MOST_ROWS of them stay in memory."""

    def __init__(self) -> None:
        self._states: Counter[ShotState] = Counter()
        self._spans: list[tuple[float, float]] = []
        self._need_look = self._frames = self._frames_dubbed = 0
        self._seconds = 0.0
        self._concerns: dict[tuple[bool, str], list[Mention]] = {}
        self._for_person: list[ReportRow] = []
        self._others: list[ReportRow] = []

    def add(self, row: ReportRow) -> None:
        """Add the row of the next shot in the order of the manifest."""
        self._states[row.state] += 1
        self._need_look += row.needs_look
        self._seconds += row.seconds
        if row.state in WRITTEN:
            self._frames += row.frames
            self._spans.append((unix_time(row.begun_at), unix_time(row.ended_at)))
        if row.state is ShotState.DONE:
            self._frames_dubbed += row.frames_dubbed
        if row.state is ShotState.FAILED:
            self._concerns.setdefault((True, _without_files(row)), []).append(Mention(0.0, row.index, row.id))
        for reason in dict.fromkeys(map(_without_measures, row.look)):
            order = math.inf if row.r_opening is None else row.r_opening
            self._concerns.setdefault((False, reason), []).append(Mention(order, row.index, row.id))
        kept = self._for_person if row.needs_look else self._others
        if len(kept) < MOST_ROWS:
            kept.append(row)

    def summary(self) -> Summary:
        """Return the sums over all shots."""
        spent_s = covered_s(self._spans)
        pace = self._frames / spent_s if spent_s else None
        return Summary(
            shots=self._states.total(),
            states={state.value: self._states[state] for state in ShotState},
            need_look=self._need_look,
            frames=self._frames,
            frames_dubbed=self._frames_dubbed,
            shot_seconds=round(self._seconds, 3),
            seconds=round(spent_s, 3) if pace else None,
            frames_per_second=pace,
        )

    def concerns(self) -> tuple[Concern, ...]:
        """Return what wants a person's look: errors first, then the quality gate; the text of the most shots first."""
        order = sorted(self._concerns.items(), key=lambda one: (not one[0][0], -len(one[1]), one[1][0].row, one[0][1]))
        return tuple(Concern(failed, text, tuple(sorted(shots))) for (failed, text), shots in order)

    def page_rows(self) -> Sequence[ReportRow]:
        """Return the rows of the page in their order: at most MOST_ROWS, those for a person before others."""
        return sorted((self._for_person + self._others)[:MOST_ROWS], key=lambda row: row.index)


def _without_files(row: ReportRow) -> str:
    text = row.error
    spoken = [(line.rpartition(" ")[2], "SPEECH") for line in row.lines]
    for uri, name in ((row.footage, "FOOTAGE"), (row.speech, "SPEECH"), *spoken, (row.output, "VIDEO")):
        text = text.replace(uri, name) if uri else text
    return text


def _without_measures(reason: str) -> str:
    """Return a reason of the quality gate without its measured numbers. Thresholds, behind the last colon, stay."""
    measured, colon, wanted = reason.rpartition(":")
    return f"{_NUMBER.sub('…', measured)}:{wanted}" if colon else _NUMBER.sub("…", reason)


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _ratio(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole > 0 else None


COLUMNS: Final = ReportRow._fields
"""Columns of `shots.csv`, and keys of a shot in `shots.json`."""


def writing_csv(rows: Iterable[ReportRow], path: Path) -> Iterator[ReportRow]:
    """Write rows to a CSV file with a line of column names, and yield each row when it is written.

    Numbers are written with a point, unknown values are empty, truth values are `true` and `false`. The texts of a list are joined
    by ` | `. Counts are written as `NAME=COUNT` and joined by `; `. A text that a spreadsheet program would take for a formula gets
    a `'` in front.
    """
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([value if type(value) in _PLAIN else safe_cell(value) for value in row])
            yield row


def write_json(facts: BatchFacts, rows: Iterable[ReportRow], path: Path) -> Overview:
    """Write the batch, its sums and its rows to one JSON document, ASCII, one shot a line, and return the overview of the rows."""
    overview = Overview()
    batch = {"name": facts.name, "manifest_sha256": facts.manifest_sha256, "created_at": facts.created_at, "engine": facts.engine}
    # The sums stand in front of the rows, and are known after the last row.
    with tempfile.TemporaryFile(dir=path.parent) as lines, path.open("wb") as file:
        separator = b""
        for row in rows:
            overview.add(row)
            lines.write(separator + _compact(row._asdict()))
            separator = b",\n"
        head = {"format": FORMAT, "batch": batch, "summary": asdict(overview.summary())}
        file.write(_compact(head)[:-1] + b', "shots": [\n')
        lines.seek(0)
        shutil.copyfileobj(lines, file)
        file.write(b"\n]}\n")
    return overview


def _compact(document: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(document).encode("ascii")


def safe_cell(value: object) -> str:
    """Return the text of a value in a CSV, as `writing_csv` describes."""
    match value:
        case str() | None:
            return _safe(value or "")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case tuple():
            return _safe(" | ".join(value))
        case Mapping():
            return _safe("; ".join(f"{name}={count}" for name, count in sorted(value.items())))
        case _:
            return _safe(str(value))


def _safe(text: str) -> str:
    begin = text[:1]
    if begin and begin in _BLANKS:
        return f"'{text}" if begin != " " or text.lstrip(_BLANKS)[:1] in _FORMULA else text
    return f"'{text}" if begin in _FORMULA else text


def write_report(
    facts: BatchFacts, shots: Iterable[ListedShot], thumbnails: Callable[[Sequence[str]], Mapping[str, bytes]], folder: Path
) -> Path:
    """Write the report of a batch, all files of it or none, and return the path of the page.

    The page asks for nothing over the network, and its script may not either. Links to videos are relative to the folder, so
    that the report and the videos can be moved or shared together. The same arguments give the same bytes.

    Args:
        facts: what the batch is.
        shots: all shots in the order of the rows. They are read once, and need not be in memory together.
        thumbnails: gives the JPEG files of shots by id. It is called with the shots that have `has_thumbnail`, some at a time.
        folder: gets the page, the tables and the pictures. An older report in it is replaced.

    Raises:
        InvalidRequestError: `folder` cannot be written, or holds other files than a report.
        StorageFullError: no space is left.
        DubstageError: `thumbnails` failed.
    """
    check_report_folder(folder)
    with report_folder(folder) as inside:
        (inside / "thumbnails").mkdir()
        rows = writing_csv(_rows_with_pictures(shots, thumbnails, inside), inside / "shots.csv")
        overview = write_json(facts, rows, inside / "shots.json")
        summary, concerns, script = overview.summary(), overview.concerns(), _SCRIPT.read_text(encoding="utf-8")
        values = {
            "report": {"title": f"Batch {facts.name}"},
            "facts": facts,
            "summary": summary,
            "concerns": concerns[:SHOWN_CONCERNS],
            "more_concerns": len(concerns[SHOWN_CONCERNS:]),
            "shown_shots": SHOWN_SHOTS,
            "rows": overview.page_rows(),
            "more_rows": max(0, summary.shots - MOST_ROWS),
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


def _rows_with_pictures(
    shots: Iterable[ListedShot], thumbnails: Callable[[Sequence[str]], Mapping[str, bytes]], folder: Path
) -> Iterator[ReportRow]:
    """Yield the rows of shots. The picture of a shot is written before its row."""
    left = iter(shots)
    while some := tuple(islice(left, _PICTURES_AT_ONCE)):
        ids = [one.shot.id for one in some if one.record.has_thumbnail]
        pictures = thumbnails(ids) if ids else {}
        for one in some:
            name = f"thumbnails/{one.shot.id}.jpg" if one.shot.id in pictures else None
            if name is not None:
                path_below(folder, name, field="output").write_bytes(pictures[one.shot.id])
            yield row_of(one, name)


def _reasons_of(row: ReportRow) -> tuple[ReasonCount, ...]:
    return shares_of(row.frames_by_reason)


def _link_of(folder: Path, row: ReportRow) -> str:
    """Return the URL of a video on a disk, relative to the report's folder; empty: the video is elsewhere, or there is none yet."""
    if not row.output_sha256 or not row.output.startswith("/"):
        return ""
    return quote(os.fsencode(os.path.relpath(row.output, folder)))
