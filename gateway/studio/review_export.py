"""Decisions about the shots of a batch as files for other programs: CSV, and markers on a timeline as EDL or OpenTimelineIO.

A timeline has the shots with a decision about their present video, one behind the other in the order of the rows. A marker lies on
the frame of its note; a note about a whole video lies on the first frame.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from gateway.batch.report import safe_cell
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.types import ShotRecord
from gateway.media.sequence_names import LISTING_SUFFIX
from gateway.studio.edl import MOST_EVENTS, edl_text
from gateway.studio.timeline import DROP_RATES, Timeline, exact_rate, opentimelineio, rate_text
from services.common.errors import InvalidRequestError

if TYPE_CHECKING:
    import opentimelineio as otio

ExportFormat = Literal["csv", "edl", "otio"]
COLUMNS: Final = (
    "shot",
    "number",
    "present",
    "state",
    "note",
    "frame",
    "x",
    "y",
    "width",
    "height",
    "reviewer",
    "caller",
    "assignee",
    "decided_at",
    "output_sha256",
)
"""Columns of the CSV. `present`: the decision is the last one, and about the present video."""
_COLOURS: Final[Mapping[ReviewState, str]] = {
    ReviewState.APPROVED: "GREEN",
    ReviewState.REJECTED: "RED",
    ReviewState.ASSIGNED: "YELLOW",
}


@dataclass(frozen=True, slots=True)
class ReviewedShot:
    """Shot with a decision about its present video.

    Attributes:
        record: record of the shot.
        decision: the decision.
        rate: frames per second of the video; None: the shot has no video.
    """

    record: ShotRecord
    decision: Decision
    rate: Fraction | None


def decisions_csv(decisions: Sequence[Decision], present: Mapping[str, Decision]) -> str:
    """Return decisions as CSV with a line of column names. Unknown values are empty. Texts cannot be formulas of a spreadsheet.

    Args:
        decisions: decisions in the order of the lines.
        present: decisions about the present videos, by id of the shot.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in decisions:
        region = one.region.model_dump() if one.region is not None else {}
        values = {**one.model_dump(mode="json"), **region, "shot": one.id, "present": present.get(one.id) == one}
        writer.writerow([safe_cell(values.get(column)) for column in COLUMNS])
    return text.getvalue()


def timeline_text(name: str, shots: Sequence[ReviewedShot], kind: Literal["edl", "otio"]) -> str:
    """Return the decisions about videos as a timeline with markers.

    Args:
        name: name of the batch.
        shots: shots in the order of the rows. Shots without a video are left out.
        kind: edl: CMX 3600; otio: JSON of OpenTimelineIO.

    Raises:
        InvalidRequestError: OpenTimelineIO is not installed; no shot has a video; or, of an EDL, the videos have several frame
            rates, a rate without timecodes, or are too many.
    """
    otio = opentimelineio()
    filmed = [shot for shot in shots if shot.rate is not None and shot.record.frames]
    if not filmed:
        raise InvalidRequestError(f"no shot of batch {name} has a video and a decision: choose csv", field="format", named=True)
    timeline = otio.schema.Timeline(name)
    track = otio.schema.Track(name, kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for shot in filmed:
        track.append(_clip(otio, shot))
    if kind == "otio":
        return str(otio.adapters.write_to_string(timeline, "otio_json"))
    rate = _edl_rate(filmed)
    return edl_text(Timeline(Path(name), timeline, rate, start=0, drop=rate in DROP_RATES), track)


def _edl_rate(filmed: Sequence[ReviewedShot]) -> Fraction:
    """Return the frame rate of an EDL of shots.

    Raises:
        InvalidRequestError: an EDL cannot hold the shots.
    """
    otio = opentimelineio()
    rates = {shot.rate or Fraction(0): shot.record.id for shot in filmed}
    stated = next(iter(rates))
    rate = exact_rate(stated)
    problem = ""
    if len(rates) > 1:
        (one, first), (other, second) = list(rates.items())[:2]
        problem = f"has one frame rate, and shot {first} has {rate_text(one)}, shot {second} {rate_text(other)} frames per second"
    elif len(filmed) > MOST_EVENTS:
        problem = f"has at most {MOST_EVENTS} events, and {len(filmed)} shots have decisions"
    elif rate is None or not otio.opentime.RationalTime.is_smpte_timecode_rate(float(rate)):
        problem = f"has timecodes, and there are none at {rate_text(stated)} frames per second"
    if rate is None or problem:
        raise InvalidRequestError(f"an EDL {problem}: choose otio", field="format", named=True)
    return rate


def _clip(otio: Any, shot: ReviewedShot) -> otio.schema.Clip:
    record, rate = shot.record, float(shot.rate or 0)
    span = otio.opentime.TimeRange(otio.opentime.RationalTime(0, rate), otio.opentime.RationalTime(record.frames, rate))
    output = _one_line(record.output)
    # A list of frames is no media that an editor can open.
    frames = record.output.endswith(LISTING_SUFFIX)
    media = otio.schema.MissingReference(output, span) if frames else otio.schema.ExternalReference(output, span)
    clip = otio.schema.Clip(name=record.id, media_reference=media, source_range=span)
    clip.markers.append(decision_marker(otio, shot, shot.decision.frame or 0))
    return clip


def decision_marker(otio: Any, shot: ReviewedShot, frame: int) -> otio.schema.Marker:
    """Return the marker of a decision, one frame long.

    Args:
        otio: the module `opentimelineio`.
        frame: frame of the marker in the time of its clip's media.
    """
    rate, decision = float(shot.rate or 0), shot.decision
    said = {
        **decision.model_dump(mode="json", exclude_none=True),
        "frame_rate": shot.record.frame_rate or str(shot.rate),
    }
    return otio.schema.Marker(
        name=marker_text(decision),
        marked_range=otio.opentime.TimeRange(otio.opentime.RationalTime(frame, rate), otio.opentime.RationalTime(1, rate)),
        color=_COLOURS[decision.state],
        metadata={"dubstage": said},
    )


def marker_text(decision: Decision) -> str:
    """Return a decision in one line, such as `rejected by Ada: the chin slips [x 0.25 y 0.5 width 0.5 height 0.3]`."""
    who = f" by {decision.reviewer}" if decision.reviewer else ""
    to = f" to {decision.assignee}" if decision.assignee else ""
    note = f": {decision.note}" if decision.note else ""
    region = decision.region
    area = ""
    if region is not None:
        area = f" [x {region.x:g} y {region.y:g} width {region.width:g} height {region.height:g}]"
    return _one_line(f"{decision.state}{to}{who}{note}{area}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
