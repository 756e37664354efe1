"""Webhooks and the events on their way, in the database that all gateways of an installation share.

An event is written in the transaction that stores the end of its operation, and refers to the operation: the row holds no payload,
and goes with the operation when the operation is deleted, expires, or concerns an erased person.

A delivery is leased by moving the time when it is due. If a gateway dies, another gateway sends the delivery after that time.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Double,
    ForeignKey,
    String,
    UniqueConstraint,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from gateway.database.session import Database, new_holder
from gateway.database.tables import Base
from gateway.operations.store import NO_REQUEST_ID, OperationRecord, RequestIdentity
from gateway.times import now
from services.common.errors import InvalidRequestError, OverloadedError, WebhookNotFoundError

MOST_WEBHOOKS: Final = 16
"""Most webhooks of a tenant."""
LEASE_S: Final = 60.0
"""Seconds that a gateway has for one attempt. Longer than any attempt takes."""
_SECRET_BYTES: Final = 32
_MOST_CHARACTERS: Final = 300


class EventType(StrEnum):
    """Kinds of events. The values are the field `type` of the payload."""

    OPERATION_DONE = "operation.done"
    OPERATION_FAILED = "operation.failed"
    BATCH_DONE = "batch.done"
    SHOT_REVIEWED = "shot.reviewed"


class WebhookRow(Base):
    """One address that events are sent to."""

    __tablename__ = "webhooks"

    webhook_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    secret: Mapped[str] = mapped_column(String(80))
    events: Mapped[str] = mapped_column(String(200))
    """Kinds of events, with commas between them."""
    created_at: Mapped[str] = mapped_column(String(32))
    disabled: Mapped[bool]
    request_id: Mapped[str | None] = mapped_column(String(36), index=True, unique=True)
    request_sha256: Mapped[str | None] = mapped_column(String(64))


class DeliveryRow(Base):
    """One event that has not arrived at one webhook."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (UniqueConstraint("webhook_id", "operation", name="uq_webhook_deliveries_event"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    webhook_id: Mapped[str] = mapped_column(String(64), ForeignKey("webhooks.webhook_id", ondelete="CASCADE"))
    operation: Mapped[int] = mapped_column(ForeignKey("operations.number", ondelete="CASCADE"), index=True)
    event_id: Mapped[str] = mapped_column(String(80))
    event: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(160))
    created_at: Mapped[str] = mapped_column(String(32))
    due: Mapped[float] = mapped_column(Double, index=True)
    """Time from which on any gateway may take the delivery, by the clock of the database, Unix time in seconds."""
    owner: Mapped[str] = mapped_column(String(80))
    """The gateway process that took the delivery last; empty: none."""
    attempts: Mapped[int]
    last_error: Mapped[str] = mapped_column(String(300))
    dead: Mapped[bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """A registered address.

    Attributes:
        webhook_id: random id.
        url: the address.
        secret: key of the signatures, `whsec_` and base64.
        events: kinds of events that are sent.
        created_at: time of the registration, RFC 3339, UTC.
        disabled: whether the receiver has answered 410 Gone.
    """

    webhook_id: str
    url: str
    secret: str
    events: tuple[EventType, ...]
    created_at: str
    disabled: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """An event on its way to one webhook.

    Attributes:
        number: grows with every event.
        webhook: where the event goes.
        event_id: the same for each attempt.
        event: kind of the event.
        subject: name of the operation, or of the batch, or BATCH/shots/SHOT.
        created_at: time of the event, RFC 3339, UTC.
        attempts: attempts that failed.
        last_error: why the last attempt failed.
        dead: whether no further attempt follows.
    """

    number: int
    webhook: Webhook
    event_id: str
    event: EventType
    subject: str
    created_at: str
    attempts: int
    last_error: str
    dead: bool


def _webhook(row: WebhookRow) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        url=row.url,
        secret=row.secret,
        events=tuple(EventType(name) for name in row.events.split(",")),
        created_at=row.created_at,
        disabled=row.disabled,
    )


def _delivery(row: DeliveryRow, webhook: WebhookRow) -> Delivery:
    return Delivery(
        number=row.number,
        webhook=_webhook(webhook),
        event_id=row.event_id,
        event=EventType(row.event),
        subject=row.subject,
        created_at=row.created_at,
        attempts=row.attempts,
        last_error=row.last_error,
        dead=row.dead,
    )


def add_event(session: Session, record: OperationRecord, event: EventType, subject: str) -> None:
    """Write an event for each webhook that wants it, in the transaction that stores the end of an operation."""
    rows = session.scalars(select(WebhookRow).where(WebhookRow.disabled.is_(False))).all()
    wanted = [row.webhook_id for row in rows if event in row.events.split(",")]
    if not wanted:
        return
    common = {
        "operation": record.number,
        "event_id": f"msg_{record.name.removeprefix('operations/')}",
        "event": str(event),
        "subject": subject,
        "created_at": now(),
        "due": 0.0,
        "owner": "",
        "attempts": 0,
        "last_error": "",
        "dead": False,
    }
    session.execute(insert(DeliveryRow), [{**common, "webhook_id": webhook} for webhook in wanted])


class WebhookStore:
    """Tables of webhooks and deliveries. All methods block, and may be called from any thread.

    Args:
        database: database of the operations.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = new_holder()

    def create(self, url: str, events: Sequence[EventType], identity: RequestIdentity = NO_REQUEST_ID) -> tuple[Webhook, bool]:
        """Register an address. Return the webhook with a new secret, and whether it is new.

        Args:
            url: the address.
            events: kinds of events that are sent.
            identity: what identifies the request when the request comes again.

        Raises:
            OverloadedError: the tenant has MOST_WEBHOOKS already.
            RequestIdReusedError: another request had this id.
        """
        row = WebhookRow(
            webhook_id=f"wh-{secrets.token_hex(12)}",
            url=url,
            secret="whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode(),
            events=",".join(sorted(set(events))),
            created_at=now(),
            disabled=False,
            request_id=identity.request_id or None,
            request_sha256=identity.sha256 or None,
        )
        with self._database.writing() as session:
            self._database.one_by_one(session)
            if (before := _created_by(session, identity)) is not None:
                return before, False
            if (session.scalar(select(func.count()).select_from(WebhookRow)) or 0) >= MOST_WEBHOOKS:
                raise OverloadedError(f"there are {MOST_WEBHOOKS} webhooks, the most that a tenant has: delete one")
            session.add(row)
            session.flush()
            return _webhook(row), True

    def created_by(self, identity: RequestIdentity) -> Webhook | None:
        """Return the webhook that an earlier request of the same id has registered; None: there is none.

        Raises:
            RequestIdReusedError: the earlier request was another one.
        """
        with self._database.reading() as session:
            return _created_by(session, identity)

    def get(self, webhook_id: str) -> Webhook:
        """Return a webhook.

        Raises:
            WebhookNotFoundError: there is no such webhook.
        """
        with self._database.reading() as session:
            return _webhook(_webhook_row(session, webhook_id))

    def list(self) -> list[Webhook]:
        """Return all webhooks in the order of their ids."""
        with self._database.reading() as session:
            return [_webhook(row) for row in session.scalars(select(WebhookRow).order_by(WebhookRow.webhook_id))]

    def delete(self, webhook_id: str) -> None:
        """Remove a webhook with its deliveries.

        Raises:
            WebhookNotFoundError: there is no such webhook.
        """
        with self._database.writing() as session:
            session.delete(_webhook_row(session, webhook_id))

    def deliveries(self, webhook_id: str, *, dead: bool, after: int, limit: int) -> Sequence[Delivery]:
        """Return deliveries of a webhook, oldest first.

        Args:
            webhook_id: id of the webhook.
            dead: only deliveries that were given up.
            after: number of the delivery behind which the list begins.
            limit: most deliveries.

        Raises:
            WebhookNotFoundError: there is no such webhook.
        """
        with self._database.reading() as session:
            webhook = _webhook_row(session, webhook_id)
            query = select(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id, DeliveryRow.number > after)
            if dead:
                query = query.where(DeliveryRow.dead.is_(True))
            rows = session.scalars(query.order_by(DeliveryRow.number).limit(limit))
            return [_delivery(row, webhook) for row in rows]

    def replay(self, webhook_id: str, event_ids: Collection[str]) -> int:
        """Send deliveries that were given up again, enable the webhook, and return the number of deliveries.

        Args:
            webhook_id: id of the webhook.
            event_ids: ids of the events; empty: all that were given up.

        Raises:
            WebhookNotFoundError: there is no such webhook.
            InvalidRequestError: an event of an id was not given up, or does not exist.
        """
        with self._database.writing() as session:
            _webhook_row(session, webhook_id).disabled = False
            chosen = and_(DeliveryRow.webhook_id == webhook_id, DeliveryRow.dead.is_(True))
            if event_ids:
                # PostgreSQL cannot be asked for a NUL, which no id has.
                chosen = and_(chosen, DeliveryRow.event_id.in_(sorted({one.replace("\0", "\ufffd") for one in event_ids})))
                stored = set(session.scalars(select(DeliveryRow.event_id).where(chosen)))
                if unknown := sorted(set(event_ids) - stored):
                    raise InvalidRequestError(
                        f"{unknown[0][:80]!r} is no delivery that was given up: see ListWebhookDeliveries",
                        field="event_ids",
                        named=True,
                    )
            fresh = {"dead": False, "attempts": 0, "due": 0.0, "owner": ""}
            return cast("CursorResult[object]", session.execute(update(DeliveryRow).where(chosen).values(**fresh))).rowcount

    def take(self, limit: int) -> Sequence[Delivery]:
        """Lease the deliveries that have been due longest, and return them.

        Args:
            limit: most deliveries.
        """
        clock = self._database.clock
        due = and_(DeliveryRow.due <= clock, DeliveryRow.dead.is_(False))
        with self._database.reading() as session:
            # Most looks find nothing, and change nothing.
            if session.scalar(select(DeliveryRow.number).where(due).limit(1)) is None:
                return []
        query = (
            select(DeliveryRow, WebhookRow)
            .join(WebhookRow, WebhookRow.webhook_id == DeliveryRow.webhook_id)
            .where(due)
            .order_by(DeliveryRow.due, DeliveryRow.number)
            .limit(limit)
            .with_for_update(of=DeliveryRow, skip_locked=True)
        )
        with self._database.writing() as session:
            taken = [_delivery(row, webhook) for row, webhook in session.execute(query).all()]
            mine = update(DeliveryRow).where(DeliveryRow.number.in_([one.number for one in taken]))
            session.execute(mine.values(owner=self._owner, due=clock + LEASE_S))
            return taken

    def arrived(self, delivery: Delivery) -> None:
        """Forget a delivery that has arrived."""
        with self._database.writing() as session:
            session.execute(delete(DeliveryRow).where(self._is_mine(delivery)))

    def failed(self, delivery: Delivery, error: str, *, again_in_s: float | None) -> None:
        """Store that an attempt failed.

        Args:
            delivery: the delivery.
            error: why.
            again_in_s: seconds before the next attempt; None: the delivery is given up.
        """
        values: dict[str, object] = {"attempts": delivery.attempts + 1, "last_error": error[:_MOST_CHARACTERS], "owner": ""}
        values |= {"dead": True} if again_in_s is None else {"due": self._database.clock + again_in_s}
        with self._database.writing() as session:
            session.execute(update(DeliveryRow).where(self._is_mine(delivery)).values(**values))

    def gone(self, delivery: Delivery, error: str) -> None:
        """Disable a webhook whose receiver wants no more events, and give all its deliveries up."""
        webhook_id = delivery.webhook.webhook_id
        with self._database.writing() as session:
            session.execute(update(WebhookRow).where(WebhookRow.webhook_id == webhook_id).values(disabled=True))
            left = update(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id, DeliveryRow.dead.is_(False))
            session.execute(left.values(dead=True, last_error=error[:_MOST_CHARACTERS], owner=""))

    def release(self) -> None:
        """Let other gateways take the deliveries of this process at once."""
        with self._database.writing() as session:
            mine = update(DeliveryRow).where(DeliveryRow.owner == self._owner, DeliveryRow.dead.is_(False))
            session.execute(mine.values(owner="", due=0.0))

    def _is_mine(self, delivery: Delivery) -> ColumnElement[bool]:
        return and_(DeliveryRow.number == delivery.number, DeliveryRow.owner == self._owner)


def _created_by(session: Session, identity: RequestIdentity) -> Webhook | None:
    row = session.scalar(select(WebhookRow).where(WebhookRow.request_id == identity.request_id)) if identity.request_id else None
    if row is None:
        return None
    identity.check(row.request_sha256)
    return _webhook(row)


def _webhook_row(session: Session, webhook_id: str) -> WebhookRow:
    row = session.get(WebhookRow, webhook_id) if "\0" not in webhook_id else None
    if row is None:
        raise WebhookNotFoundError(f"no webhook {webhook_id[:80]!r}: see ListWebhooks", resource=webhook_id)
    return row
