"""The rows of a batch report: everything that is known of each shot, and the sums over the batch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.batch.progress import progress_of
from gateway.batch.types import Shot, ShotMotion, ShotRecord, ShotState

_NUMBER: Final = re.compile(r"(?<![\w.])-?\d*\.?\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One shot of a batch. The names of the fields are the columns of `shots.csv` and the keys of `shots.json`, in this order.

    Attributes:
        index: number of the shot's row in the manifest, from 0, as `dubstage batch run --index` takes it.
        id: id of the shot.
        state: state of the shot.
        needs_look: whether a person must look at the shot: it failed, no frame is dubbed, or the quality gate marked it.
        look: why: no frame is dubbed, or the reasons of the quality gate.
        method: method that dubbed the shot; before that, the method of the manifest.
        r_opening: correlation of the wanted and the shown opening of the mouth, -1 to 1; None: not measured.
        silence_opening, opening_spread, width_spread, fastest_step, vowel_shift_ms, closure_shift_ms: as in ShotMotion; None: not
            measured.
        frames: frames of the film.
        frames_dubbed: frames with a new mouth.
        dubbed_share: `frames_dubbed` over `frames`, 0 to 1; None: the film has no frames yet.
        frames_by_reason: number of frames by what happened to them.
        warnings: warnings of the dub.
        seconds: time of the last attempt that ended, seconds.
        frames_per_second: `frames` over `seconds`; None: not known.
        attempts: times that a worker has begun the shot.
        worker: worker of the last attempt.
        begun_at, ended_at: begin and end of the last attempt, RFC 3339; empty: not yet.
        exit_code: exit code of the last attempt; None: no attempt has ended.
        error: message of the error of the last attempt; empty: none.
        footage, speech, actor: what was dubbed; None: not named.
        output: path or URL of the film.
        output_sha256: digest of the film; empty: there is no film yet.
        thumbnail: path of the picture in the report's folder; None: there is none.
    """

    index: int
    id: str
    state: ShotState
    needs_look: bool
    look: tuple[str, ...]
    method: str
    r_opening: float | None
    silence_opening: float | None
    opening_spread: float | None
    width_spread: float | None
    fastest_step: float | None
    vowel_shift_ms: float | None
    closure_shift_ms: float | None
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
    actor: str | None
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


@dataclass(frozen=True, slots=True)
class Concern:
    """One text that wants a person's look, and the shots that have it.

    Attributes:
        failed: the text is an error of failed shots; otherwise it is a reason of the quality gate.
        text: the error with FOOTAGE, SPEECH and FILM for the shot's own files, or the reason with `…` for each number that was
            measured: shots with the same fault stand together.
        rows: the shots: failed ones in the order of the manifest, others with the least `r_opening` first.
    """

    failed: bool
    text: str
    rows: tuple[Row, ...]


def row_of(index: int, shot: Shot, record: ShotRecord, thumbnail: str | None) -> Row:
    """Return the row of a shot.

    Args:
        index: number of the shot's row in the manifest, from 0.
        shot: the row of the manifest.
        record: what is known of the shot.
        thumbnail: path of the shot's picture in the report's folder; None: there is none.
    """
    return Row(
        index=index,
        id=shot.id,
        state=record.state,
        needs_look=record.state in (ShotState.FAILED, ShotState.UNDUBBED) or bool(record.look),
        look=record.look,
        method=record.method or shot.method or "",
        r_opening=_rounded(record.r_opening),
        **(record.motion or ShotMotion()).model_dump(),
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
        footage=shot.footage,
        speech=shot.speech,
        actor=shot.actor,
        output=record.output or shot.output,
        output_sha256=record.output_sha256,
        thumbnail=thumbnail,
    )


def summary_of(rows: Sequence[Row], records: Sequence[ShotRecord]) -> Summary:
    """Return the sums over all shots of a batch.

    Args:
        rows: the rows of all shots.
        records: their records, in the same order.
    """
    states = Counter(row.state for row in rows)
    progress = progress_of(records)
    return Summary(
        shots=len(rows),
        states={state.value: states[state] for state in ShotState},
        need_look=sum(row.needs_look for row in rows),
        frames=progress.frames,
        frames_dubbed=sum(row.frames_dubbed for row in rows if row.state is ShotState.DONE),
        shot_seconds=round(sum(row.seconds for row in rows), 3),
        seconds=round(progress.frames / progress.frames_per_second, 3) if progress.frames_per_second else None,
        frames_per_second=progress.frames_per_second,
    )


def concerns_of(rows: Sequence[Row]) -> tuple[Concern, ...]:
    """Return what wants a person's look: errors first, then the quality gate; the text of the most shots first."""
    shots: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        if row.state == ShotState.FAILED:
            shots.setdefault((True, _without_files(row)), []).append(row)
        for reason in dict.fromkeys(map(_without_measures, row.look)):
            shots.setdefault((False, reason), []).append(row)
    order = sorted(shots, key=lambda key: (not key[0], -len(shots[key]), shots[key][0].index, key[1]))
    return tuple(
        Concern(failed, text, tuple(sorted(shots[failed, text], key=_place_of_failed if failed else _place_of_marked)))
        for failed, text in order
    )


def _without_files(row: Row) -> str:
    text = row.error
    for place, name in ((row.footage, "FOOTAGE"), (row.speech, "SPEECH"), (row.output, "FILM")):
        text = text.replace(place, name) if place else text
    return text


def _without_measures(reason: str) -> str:
    """Return a reason of the quality gate without its measured numbers. Thresholds, behind the last colon, stay."""
    measured, colon, wanted = reason.rpartition(":")
    return f"{_NUMBER.sub('…', measured)}:{wanted}" if colon else _NUMBER.sub("…", reason)


def _place_of_failed(row: Row) -> int:
    return row.index


def _place_of_marked(row: Row) -> tuple[float, int]:
    return (math.inf if row.r_opening is None else row.r_opening, row.index)


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _ratio(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole > 0 else None
