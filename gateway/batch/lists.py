"""Lists of the shots of a batch: which shots, in which order, and what a list tells of each shot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import aliased

from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.types import ShotRecord, ShotSpec
from gateway.database.tables import BatchShotRow

LOOK: Final = "look"
"""Word for shots that the quality gate marked, among the names of states."""

Order = Literal["row", "risk", "name"]
"""Order of a list of shots; `risk` begins with the highest."""

ORDERS: Final[Mapping[Order, tuple[ColumnElement[Any], ...]]] = {
    "row": (BatchShotRow.number.asc(),),
    "risk": (BatchShotRow.risk.desc(), BatchShotRow.number.asc()),
    "name": (BatchShotRow.shot_id.asc(),),
}
"""Columns that each order sorts by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotQuery:
    """Shots that a list has, and their order.

    Attributes:
        states: states of the shots, and LOOK for the shots that the quality gate marked; empty: all.
        to_look_at: only shots that the quality gate marked.
        reviews: states of review; empty: all.
        assignee: only shots that are assigned to this person; None: all.
        order: order of the list.
        behind: row and risk (ten thousandths) of the shot behind which the list begins; None: at the first.
    """

    states: Collection[str] = ()
    to_look_at: bool = False
    reviews: Collection[str] = ()
    assignee: str | None = None
    order: Order = "row"
    behind: tuple[int, int] | None = None


class ListedShot(NamedTuple):
    """A shot in a list.

    Attributes:
        row: row of the manifest, from 0.
        shot: the shot as it was submitted.
        record: record of the shot.
        decision: decision about the present video; None: undecided.
    """

    row: int
    shot: ShotSpec
    record: ShotRecord
    decision: Decision | None

    @property
    def review(self) -> ReviewState:
        """State of the review."""
        return ReviewState.UNDECIDED if self.decision is None else self.decision.state


def conditions_of(name: str, query: ShotQuery) -> list[ColumnElement[bool]]:
    """Return the conditions that the shots of a list meet.

    Args:
        name: name of the batch.
        query: the list.
    """
    conditions: list[ColumnElement[bool]] = [BatchShotRow.batch == name]
    if query.states:
        states = BatchShotRow.state.in_(sorted(set(query.states) - {LOOK}))
        conditions.append(or_(states, BatchShotRow.look.is_(True)) if LOOK in query.states else states)
    if query.to_look_at:
        conditions.append(BatchShotRow.look.is_(True))
    if query.reviews:
        conditions.append(BatchShotRow.review.in_(sorted(query.reviews)))
    if query.assignee is not None:
        # PostgreSQL cannot be asked for a NUL, which no name has.
        assigned = BatchShotRow.assignee == query.assignee.replace("\0", "\ufffd")
        conditions += [assigned, BatchShotRow.review != ReviewState.UNDECIDED]
    if query.behind is not None:
        row, risk = query.behind
        match query.order:
            case "row":
                conditions.append(BatchShotRow.number > row)
            case "risk":
                conditions.append(or_(BatchShotRow.risk < risk, and_(BatchShotRow.risk == risk, BatchShotRow.number > row)))
            case "name":
                one = aliased(BatchShotRow)
                begin = select(one.shot_id).where(one.batch == name, one.number == row)
                conditions.append(BatchShotRow.shot_id > func.coalesce(begin.scalar_subquery(), ""))
    return conditions
