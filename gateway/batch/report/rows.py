"""The rows of a batch report: everything that is known of each shot, and the sums over the batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.batch.types import Shot, ShotRecord, ShotState


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One shot of a batch. The names of the fields are the columns of `shots.csv` and the keys of `shots.json`, in this order.

    Attributes:
        index: number of the shot's row in the manifest, from 0, as `dubstage batch run --index` takes it.
        id: id of the shot.
        state: state of the shot.
        needs_look: whether a person must look at the shot: it failed, or the quality gate marked it.
        look: reasons of the quality gate.
        method: method that dubbed the shot; before that, the method of the manifest.
        r_opening: correlation of the wanted and the shown opening of the mouth, -1 to 1; None: not measured.
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
        work_seconds: time of the last attempts of all shots, added up.
        wall_seconds: time from the first begin to the last end of an attempt; None: no attempt has ended.
        frames_per_second: frames of the finished shots over `wall_seconds`; None: not known.
    """

    shots: int
    states: Mapping[str, int]
    need_look: int
    frames: int
    frames_dubbed: int
    work_seconds: float
    wall_seconds: float | None
    frames_per_second: float | None


@dataclass(frozen=True, slots=True)
class Concern:
    """One text that wants a person's look, and the shots that have it.

    Attributes:
        failed: the text is an error of failed shots; otherwise it is a reason of the quality gate.
        text: the error or the reason.
        rows: the shots, in the order of the manifest.
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
        needs_look=record.state == ShotState.FAILED or bool(record.look),
        look=record.look,
        method=record.method or shot.method or "",
        r_opening=_finite(record.r_opening),
        frames=record.frames,
        frames_dubbed=record.frames_dubbed,
        dubbed_share=_ratio(record.frames_dubbed, record.frames),
        frames_by_reason=record.frames_by_reason,
        warnings=record.warnings,
        seconds=_finite(record.seconds) or 0.0,
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


def summary_of(rows: Sequence[Row]) -> Summary:
    """Return the sums over all shots of a batch."""
    counted = Counter(row.state for row in rows)
    done = [row for row in rows if row.state == ShotState.DONE]
    frames = sum(row.frames for row in done)
    begins = [time for row in rows if (time := _time(row.begun_at)) is not None]
    ends = [time for row in rows if (time := _time(row.ended_at)) is not None]
    wall = (max(ends) - min(begins)).total_seconds() if begins and ends else None
    return Summary(
        shots=len(rows),
        states={state.value: counted[state] for state in ShotState},
        need_look=sum(row.needs_look for row in rows),
        frames=frames,
        frames_dubbed=sum(row.frames_dubbed for row in done),
        work_seconds=sum(row.seconds for row in rows),
        wall_seconds=wall,
        frames_per_second=_ratio(frames, wall) if frames and wall is not None else None,
    )


def concerns_of(rows: Sequence[Row]) -> tuple[Concern, ...]:
    """Return what wants a person's look: errors first, then the quality gate; the text of the most shots first."""
    shots: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        if row.state == ShotState.FAILED:
            shots.setdefault((True, row.error), []).append(row)
        for reason in row.look:
            shots.setdefault((False, reason), []).append(row)
    order = sorted(shots, key=lambda key: (not key[0], -len(shots[key]), shots[key][0].index, key[1]))
    return tuple(Concern(failed, text, tuple(shots[failed, text])) for failed, text in order)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _ratio(part: float, whole: float) -> float | None:
    return _finite(part / whole) if whole > 0 else None


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
