"""Webhooks of the gateway: your HTTP server is told of operations and batches that have ended.

with connect("localhost:50050") as connection:
    created = webhook.create(connection, "https://example.com/hook")
    print(created.name, created.secret)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dubstage.client import rpcs
from dubstage.client.arrays import number_of
from dubstage.client.calls import paged_call, unary_call
from dubstage.client.names import resource_name
from dubstage.gateway.v1 import webhook_pb2 as pb

__all__ = ["create", "delete", "get", "list_deliveries", "list_webhooks", "replay"]

Event = Literal["operation_done", "operation_failed", "batch_done", "shot_reviewed"]
"""Kind of an event."""


@unary_call(rpcs.gateway.CREATE_WEBHOOK, lambda reply: reply)
def create(url: str, *, events: Sequence[Event | int] = (), request_id: str = "") -> pb.CreateWebhookRequest:
    """Make a webhook for an https address, and return the Webhook with its secret, which no other call returns.

    Args:
        url: where events go.
        events: kinds of events; empty: all.
        request_id: UUID by which the gateway knows a request that comes again; empty: one is made.
    """
    numbers = [number_of(pb.WebhookEvent, "WEBHOOK_EVENT_", event) for event in events]
    return pb.CreateWebhookRequest(url=url, events=numbers, request_id=request_id)


@unary_call(rpcs.gateway.GET_WEBHOOK, lambda reply: reply)
def get(webhook_id: str) -> pb.GetWebhookRequest:
    """Return a Webhook, without its secret."""
    return pb.GetWebhookRequest(name=resource_name("webhooks", webhook_id))


@unary_call(rpcs.gateway.LIST_WEBHOOKS, lambda reply: list(reply.webhooks))
def list_webhooks() -> pb.ListWebhooksRequest:
    """Return all Webhooks. A tenant has fewer than a page."""
    return pb.ListWebhooksRequest()


@unary_call(rpcs.gateway.DELETE_WEBHOOK, lambda reply: None)
def delete(webhook_id: str) -> pb.DeleteWebhookRequest:
    """Erase a webhook with its deliveries."""
    return pb.DeleteWebhookRequest(name=resource_name("webhooks", webhook_id))


@paged_call(rpcs.gateway.LIST_WEBHOOK_DELIVERIES, lambda page: page.deliveries)
def list_deliveries(webhook_id: str, *, dead: bool = False, page_size: int = 0) -> pb.ListWebhookDeliveriesRequest:
    """Yield the WebhookDeliveries that wait or were given up.

    Args:
        webhook_id: id of the webhook.
        dead: only deliveries that were given up.
        page_size: most entries of one answer; 0: 100.
    """
    return pb.ListWebhookDeliveriesRequest(parent=resource_name("webhooks", webhook_id), dead=dead, page_size=page_size)


@unary_call(rpcs.gateway.REPLAY_WEBHOOK_DELIVERIES, lambda reply: reply.num_replayed)
def replay(webhook_id: str, *, event_ids: Sequence[str] = ()) -> pb.ReplayWebhookDeliveriesRequest:
    """Ask the gateway to send again what was given up, and return the number of events.

    Args:
        webhook_id: id of the webhook.
        event_ids: ids of the events; empty: all.
    """
    return pb.ReplayWebhookDeliveriesRequest(name=resource_name("webhooks", webhook_id), event_ids=event_ids)
