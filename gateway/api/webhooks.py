"""RPCs of WebhookService, and the events of operations and batches."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import empty_pb2, json_format
from sqlalchemy import select
from sqlalchemy.orm import Session

from dubstage.gateway.v1 import webhook_pb2 as pb
from dubstage.gateway.v1 import webhook_pb2_grpc
from gateway.api.batch_service import batch_message, shown_shot
from gateway.api.batches import BATCH, CLUSTER_BATCH, REVIEW, BatchViews, ReviewRequest, outputs_of
from gateway.api.errors import ErrorRewriter
from gateway.api.operations import listed_message, page_number_from, page_size_from, request_identity
from gateway.api.resources import BATCHES, WEBHOOKS, id_of, time_message
from gateway.async_utilities import in_thread
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from gateway.operations.store import OperationRecord, OperationRow, OperationStore
from gateway.settings import GatewaySettings
from gateway.webhooks.addresses import checked_target, networks_of
from gateway.webhooks.sender import DataOf, WebhookSender
from gateway.webhooks.store import Delivery, EventType, Webhook, WebhookStore, add_event
from services.common.errors import BatchNotFoundError, InvalidRequestError, OperationNotFoundError

_NUMBER_OF: Final = {
    EventType.OPERATION_DONE: pb.WEBHOOK_EVENT_OPERATION_DONE,
    EventType.OPERATION_FAILED: pb.WEBHOOK_EVENT_OPERATION_FAILED,
    EventType.BATCH_DONE: pb.WEBHOOK_EVENT_BATCH_DONE,
    EventType.SHOT_REVIEWED: pb.WEBHOOK_EVENT_SHOT_REVIEWED,
}
SECRET_AGAIN_S: Final = 300.0
"""Seconds after the registration in which a repeated request is answered with the secret again. Clients repeat for two minutes."""
_OF_BATCHES: Final = frozenset({EventType.BATCH_DONE, EventType.SHOT_REVIEWED})
_TYPE_OF: Final[Mapping[int, EventType]] = {number: event for event, number in _NUMBER_OF.items()}


def write_event(session: Session, record: OperationRecord) -> None:
    """Write the event of an operation that has ended, in the transaction that stores the end."""
    if record.kind == REVIEW:
        request = ReviewRequest.model_validate_json(record.request)
        add_event(session, record, EventType.SHOT_REVIEWED, f"{request.batch}/shots/{request.decision.id}")
        return
    if record.kind not in (BATCH, CLUSTER_BATCH):
        event = EventType.OPERATION_DONE if record.error is None else EventType.OPERATION_FAILED
        add_event(session, record, event, record.name)
        return
    name = str(json.loads(record.request)["name"])
    # Another operation goes on with a batch whose shots began anew, and writes the event.
    others = select(OperationRow.number).where(OperationRow.done.is_(False), OperationRow.output.in_(outputs_of(name))).limit(1)
    if record.error is None and session.scalar(others) is None:
        add_event(session, record, EventType.BATCH_DONE, name)


def data_of(operations: OperationStore, views: BatchViews, for_caller: Callable[[str], str]) -> DataOf:
    """Return what makes the data of events: the JSON of what GetOperation, GetBatch and GetShot return.

    Args:
        operations: the operations that callers see.
        views: looks at the batches.
        for_caller: returns a text as callers may see it.
    """

    def data(delivery: Delivery) -> Mapping[str, Any] | None:
        try:
            if delivery.event is EventType.SHOT_REVIEWED:
                name, _, shot = delivery.subject.partition("/shots/")
                return json_format.MessageToDict(shown_shot(views.store, name, shot, for_caller))
            if delivery.event is not EventType.BATCH_DONE:
                return json_format.MessageToDict(listed_message(operations.get(delivery.subject)))
            view = views.view(delivery.subject)
        except (OperationNotFoundError, BatchNotFoundError):
            return None
        return json_format.MessageToDict(batch_message(view.facts, view.progress, [for_caller(note) for note in view.notes]))

    return data


def sender_of(
    settings: GatewaySettings, store: WebhookStore, operations: OperationStore, views: BatchViews, names: ErrorRewriter
) -> WebhookSender:
    """Return what sends a tenant's events."""
    return WebhookSender(
        store,
        data_of(operations, views, names.for_caller),
        networks=settings.webhook_networks,
        attempts=settings.webhook_attempts,
        retry_s=settings.webhook_retry_s,
        deadline_s=settings.webhook_deadline_s,
    )


def _repeated_secret(webhook: Webhook) -> str:
    """Return the secret for a repeated request: for a caller who has lost the answer, and empty when that time is over."""
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(webhook.created_at)
    return webhook.secret if age.total_seconds() < SECRET_AGAIN_S else ""


def _message(webhook: Webhook, secret: str = "") -> pb.Webhook:
    return pb.Webhook(
        secret=secret,
        name=f"{WEBHOOKS}/{webhook.webhook_id}",
        url=webhook.url,
        events=[_NUMBER_OF[event] for event in webhook.events],
        create_time=time_message(webhook.created_at),
        disabled=webhook.disabled,
    )


def _delivery_message(delivery: Delivery) -> pb.WebhookDelivery:
    return pb.WebhookDelivery(
        event_id=delivery.event_id,
        event=_NUMBER_OF[delivery.event],
        subject=f"{BATCHES}/{delivery.subject}" if delivery.event in _OF_BATCHES else delivery.subject,
        attempts=delivery.attempts,
        last_error=delivery.last_error,
        dead=delivery.dead,
    )


class WebhookServicer(webhook_pb2_grpc.WebhookServiceServicer):
    """Registers, lists and removes webhooks, and shows and replays their deliveries.

    Args:
        settings: settings of the process.
        store: webhooks and deliveries.
        audit: the audit log.
    """

    def __init__(self, settings: GatewaySettings, store: WebhookStore, audit: AuditLog) -> None:
        self._networks = networks_of(settings.webhook_networks)
        self._store = store
        self._audit = audit

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: Any) -> pb.Webhook:  # noqa: N802
        """Check an address, and register it."""
        identity = request_identity(request)
        if (before := await in_thread(self._store.created_by, identity)) is not None:
            return _message(before, secret=_repeated_secret(before))
        if pb.WEBHOOK_EVENT_UNSPECIFIED in request.events:
            raise InvalidRequestError("name events, or leave the field empty for all", field="events", named=True)
        await checked_target(request.url, self._networks)
        events = [_TYPE_OF[number] for number in request.events] or list(EventType)
        webhook, new = await in_thread(self._store.create, request.url, events, identity)
        if new:
            await self._record(EventKind.WEBHOOK_CREATED, webhook.webhook_id)
        return _message(webhook, secret=webhook.secret if new else _repeated_secret(webhook))

    async def GetWebhook(self, request: pb.GetWebhookRequest, context: Any) -> pb.Webhook:  # noqa: N802
        """Return one webhook, without its secret."""
        return _message(await in_thread(self._store.get, id_of(request.name, WEBHOOKS, "name")))

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Any) -> pb.ListWebhooksResponse:  # noqa: N802
        """List webhooks in the order of their ids."""
        size = page_size_from(request.page_size)
        webhooks = [one for one in await in_thread(self._store.list) if one.webhook_id > request.page_token]
        token = webhooks[size - 1].webhook_id if len(webhooks) > size else ""
        return pb.ListWebhooksResponse(webhooks=map(_message, webhooks[:size]), next_page_token=token)

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        """Remove a webhook."""
        webhook_id = id_of(request.name, WEBHOOKS, "name")
        await in_thread(self._store.delete, webhook_id)
        await self._record(EventKind.WEBHOOK_REMOVED, webhook_id)
        return empty_pb2.Empty()

    async def ListWebhookDeliveries(  # noqa: N802
        self, request: pb.ListWebhookDeliveriesRequest, context: Any
    ) -> pb.ListWebhookDeliveriesResponse:
        """List what waits or was given up."""
        size, after = page_size_from(request.page_size), page_number_from(request.page_token or "0")
        webhook_id = id_of(request.parent, WEBHOOKS, "parent")
        deliveries = await in_thread(lambda: self._store.deliveries(webhook_id, dead=request.dead, after=after, limit=size + 1))
        token = str(deliveries[size - 1].number) if len(deliveries) > size else ""
        return pb.ListWebhookDeliveriesResponse(deliveries=map(_delivery_message, deliveries[:size]), next_page_token=token)

    async def ReplayWebhookDeliveries(  # noqa: N802
        self, request: pb.ReplayWebhookDeliveriesRequest, context: Any
    ) -> pb.ReplayWebhookDeliveriesResponse:
        """Send again what was given up."""
        webhook_id = id_of(request.name, WEBHOOKS, "name")
        count = await in_thread(self._store.replay, webhook_id, list(request.event_ids))
        await self._record(EventKind.WEBHOOK_REPLAYED, webhook_id)
        return pb.ReplayWebhookDeliveriesResponse(num_replayed=count)

    async def _record(self, event: EventKind, webhook_id: str) -> None:
        await in_thread(self._audit.record, AuditEvent(event=event, work=webhook_id))
