"""Decisions of people about shots: their checks, and the video that each decision belongs to. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.batch.types import ENDED, WRITTEN, ShotId, ShotRecord
from services.common.errors import InvalidRequestError

MOST_NOTE: Final = 4000
"""Most characters of a note."""
MOST_NAME: Final = 200
"""Most characters of a person's name."""
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
_ROUNDING: Final = 1e-6
Share = Annotated[float, Field(ge=0, le=1)]


class ReviewState(StrEnum):
    """State of the review of a shot's present video."""

    UNDECIDED = "undecided"
    APPROVED = "approved"
    REJECTED = "rejected"
    ASSIGNED = "assigned"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Region(_Strict):
    """Part of the picture, in shares of its width and height.

    Attributes:
        x, y: left and upper edge, 0 to 1.
        width, height: size, over 0 and at most to the edge of the picture.
    """

    x: Share
    y: Share
    width: Annotated[float, Field(gt=0, le=1)]
    height: Annotated[float, Field(gt=0, le=1)]

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.x + self.width > 1 + _ROUNDING or self.y + self.height > 1 + _ROUNDING:
            raise ValueError("the region leaves the picture: x + width and y + height are at most 1")
        return self


class Decision(_Strict):
    """Decision of a person about a shot. Decisions are added and never changed.

    Attributes:
        id: id of the shot.
        number: number among the decisions about the shot, from 1. The decision with the largest number counts.
        state: what is decided.
        note: text for the others; empty: none.
        frame: frame of the video that the note is about; None: the whole video.
        region: part of the picture that the note is about; None: the whole picture.
        reviewer: name of the person who decides; empty: not given.
        caller: tenant, and fingerprint of the token, of the call that brought the decision; empty: a command.
        assignee: person who is to look at the shot; only of ASSIGNED.
        decided_at: RFC 3339, UTC, milliseconds.
        output_sha256: digest of the video that the person saw; empty: the shot has no video.
        ended_at: end of the try that the person saw. It tells the tries of a shot without a video apart.
    """

    id: ShotId
    number: Annotated[int, Field(ge=1)] = 1
    state: ReviewState
    note: str = ""
    frame: Annotated[int, Field(ge=0)] | None = None
    region: Region | None = None
    reviewer: str = ""
    caller: str = ""
    assignee: str = ""
    decided_at: str
    output_sha256: str = ""
    ended_at: str = ""

    @property
    def subject(self) -> str:
        """Subject of the decision, as ShotRecord.subject."""
        return self.output_sha256 or self.ended_at

    def belongs_to(self, record: ShotRecord) -> bool:
        """Return whether the decision is about what the shot has now. A shot that was dubbed again is undecided."""
        return record.state in ENDED and self.subject == record.subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Unchecked decision of a caller about a shot. Decision describes the attributes."""

    state: ReviewState
    note: str = ""
    frame: int | None = None
    region: Region | None = None
    reviewer: str = ""
    assignee: str = ""


def decision_of(record: ShotRecord, said: Verdict, *, now: str, caller: str = "", seen_sha256: str = "") -> Decision:
    """Return a checked decision about what a shot has now.

    Args:
        record: record of the shot.
        said: what the person says.
        now: the present time, RFC 3339, UTC, milliseconds.
        caller: see Decision.
        seen_sha256: digest of the video that the person saw; empty: the present video.

    Raises:
        InvalidRequestError: the shot has no finished video, has another one than the person saw, or a value is wrong.
    """
    state, frame = said.state, said.frame
    if record.state not in WRITTEN:
        remedy = "dub the shot again" if record.state in ENDED else "wait until the shot has ended"
        raise InvalidRequestError(
            f"shot {record.id} is {record.state} and has no finished video, and a decision is about a video: {remedy}", field="name"
        )
    if state is ReviewState.UNDECIDED:
        raise InvalidRequestError("give APPROVED, REJECTED or ASSIGNED", field="state", named=True)
    if seen_sha256 and seen_sha256 != record.output_sha256:
        raise InvalidRequestError(
            f"shot {record.id} was dubbed again, and has another video than the one that was looked at: look at the new video",
            field="output_sha256",
            named=True,
        )
    note, reviewer, assignee = said.note.strip(), said.reviewer.strip(), said.assignee.strip()
    for field, text, most in (("note", note, MOST_NOTE), ("reviewer", reviewer, MOST_NAME), ("assignee", assignee, MOST_NAME)):
        if len(text) > most:
            raise InvalidRequestError(f"the text has {len(text)} characters: at most {most} are allowed", field=field, named=True)
        if _CONTROLS.search(text) or (field != "note" and "\n" in text):
            raise InvalidRequestError("the text has control characters: give plain text", field=field, named=True)
    if bool(assignee) != (state is ReviewState.ASSIGNED):
        raise InvalidRequestError("give a person with ASSIGNED, and with no other state", field="assignee", named=True)
    if frame is not None and not 0 <= frame < record.frames:
        last = f"shot {record.id} has frames 0 to {record.frames - 1}"
        raise InvalidRequestError(f"{frame} is not in the video: {last}", field="frame", named=True)
    return Decision(
        id=record.id,
        state=state,
        note=note,
        frame=frame,
        region=said.region,
        reviewer=reviewer,
        caller=caller,
        assignee=assignee,
        decided_at=now,
        output_sha256=record.output_sha256,
        ended_at=record.ended_at,
    )


def region_from(x: float, y: float, width: float, height: float) -> Region:
    """Return a region.

    Raises:
        InvalidRequestError: the numbers are no part of a picture.
    """
    try:
        return Region(x=x, y=y, width=width, height=height)
    except ValueError:
        raise InvalidRequestError(
            f"{x:g},{y:g},{width:g},{height:g} is no part of the picture: give X,Y,WIDTH,HEIGHT as shares from 0 to 1, "
            "with WIDTH and HEIGHT over 0, and X + WIDTH and Y + HEIGHT at most 1",
            field="region",
            named=True,
        ) from None
