"""Delivery of events: signed by the rules of standardwebhooks.com, sent until a receiver takes them or attempts run out."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

import h11
import structlog
from standardwebhooks.webhooks import Webhook as Signer

from gateway.async_utilities import in_thread
from gateway.webhooks.addresses import Target, checked_target, networks_of
from gateway.webhooks.store import Delivery, WebhookStore
from services.common.errors import DubstageError

MAX_BODY_BYTES: Final = 256 << 10
"""Most bytes of an event. The data of a larger event is its name alone, with `truncated`."""
MOST_AT_ONCE: Final = 16
"""Most events that one gateway sends at once for a tenant."""
POLL_S: Final = 1.0
"""Seconds between two looks for events that are due."""
LONGEST_PAUSE_S: Final = 43_200.0
"""Most seconds between two attempts, before the jitter."""
_JITTER: Final = 0.25
_GONE: Final = 410
_READ_BYTES: Final = 16 << 10
_USER_AGENT: Final = f"dubstage/{version('dubstage')}"

DataOf = Callable[[Delivery], Mapping[str, Any] | None]
"""Returns the data of an event; None: what the event tells of does not exist any more. Blocks."""

_log = structlog.stdlib.get_logger("dubstage.webhooks")


def pause_s(failed: int, first_s: float, jitter: float) -> float:
    """Return the seconds before the next attempt: they double with every attempt, and vary by a quarter.

    Args:
        failed: attempts that failed, at least 1.
        first_s: seconds before the second attempt, without the jitter.
        jitter: from 0 to 1, evenly distributed.
    """
    # 2^40 s is longer than any pause, and no overflow.
    pause = min(first_s * 2.0 ** min(failed - 1, 40), LONGEST_PAUSE_S)
    return pause * (1 - _JITTER + 2 * _JITTER * jitter)


def body_of(delivery: Delivery, data: Mapping[str, Any]) -> bytes:
    """Return the payload of an event, JSON of at most MAX_BODY_BYTES."""
    event = {"type": str(delivery.event), "timestamp": delivery.created_at, "data": data}
    body = json.dumps(event, separators=(",", ":")).encode()
    if len(body) <= MAX_BODY_BYTES:
        return body
    return json.dumps({**event, "data": {"name": delivery.subject, "truncated": True}}, separators=(",", ":")).encode()


def headers_of(delivery: Delivery, body: bytes, now: datetime.datetime) -> dict[str, str]:
    """Return the headers that identify and sign one attempt.

    Args:
        delivery: the event.
        body: its payload.
        now: time of the attempt, UTC.
    """
    return {
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Signer(delivery.webhook.secret).sign(delivery.event_id, now, body.decode()),
    }


async def post(target: Target, body: bytes, headers: Mapping[str, str]) -> int:
    """Post a body to the addresses that were checked, one after the other until one is connected. Return the status of HTTP.

    Redirects are not followed, and the answer's body is not read.

    Raises:
        OSError: no address takes the connection, or TLS fails.
        h11.ProtocolError: the answer is no HTTP.
    """
    context = ssl.create_default_context() if target.tls else None
    server_name = target.host if target.tls else None
    refused: OSError = OSError("the host has no address")
    for address in target.addresses:
        try:
            reader, writer = await asyncio.open_connection(address, target.port, ssl=context, server_hostname=server_name)
            break
        except OSError as problem:
            refused = problem
    else:
        raise refused
    try:
        return await _exchange(reader, writer, target, body, headers)
    finally:
        # The answer has been read as far as it matters, so nothing waits for the other side's goodbye.
        writer.transport.abort()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target, body: bytes, headers: Mapping[str, str]
) -> int:
    http = h11.Connection(h11.CLIENT)
    fixed = {
        "host": target.authority,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "user-agent": _USER_AGENT,
        "connection": "close",
    }
    parts: list[h11.Event] = [
        h11.Request(method="POST", target=target.path, headers=list({**fixed, **headers}.items())),
        h11.Data(data=body),
        h11.EndOfMessage(),
    ]
    for part in parts:
        writer.write(http.send(part) or b"")
    with suppress(ConnectionError):
        # A receiver may answer before it has read everything.
        await writer.drain()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            return event.status_code
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionError("the receiver closed the connection without an answer")


def _why(problem: Exception) -> str:
    """Return why a post failed, without a word of the receiver, and without its address: callers may see neither of them."""
    kinds = {
        h11.ProtocolError: "the receiver's answer is not HTTP",
        ssl.SSLCertVerificationError: "the certificate of the receiver cannot be verified",
        ssl.SSLError: "TLS with the receiver failed",
        ConnectionRefusedError: "the receiver refused the connection",
        ConnectionError: "the receiver closed the connection without an answer",
    }
    return next((text for kind, text in kinds.items() if isinstance(problem, kind)), "the receiver cannot be reached")


class WebhookSender:
    """Sends the events of one tenant, and shares them with the tenant's senders in other gateways. Used from one event loop.

    Args:
        store: webhooks and deliveries.
        data_of: see `DataOf`.
        networks: setting webhook_networks.
        attempts: attempts before an event is given up.
        retry_s: seconds before the second attempt.
        deadline_s: most seconds of one attempt.
    """

    def __init__(
        self, store: WebhookStore, data_of: DataOf, *, networks: str, attempts: int, retry_s: float, deadline_s: float
    ) -> None:
        self._store = store
        self._data_of = data_of
        self._networks = networks_of(networks)
        self._attempts = attempts
        self._retry_s = retry_s
        self._deadline_s = deadline_s
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send the deliveries that are due, until cancelled. Then release the others, so that other gateways send them."""
        try:
            while True:
                await self._look()
        finally:
            for task in self._sending:
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            # If the database cannot be written, the leases end on their own.
            with suppress(DubstageError):
                await in_thread(self._store.release)

    async def _look(self) -> None:
        free = MOST_AT_ONCE - len(self._sending)
        try:
            taken = await in_thread(self._store.take, free) if free else ()
        except DubstageError as problem:
            _log.warning("webhooks_not_seen", reason=problem.reason, message=problem.message)
            taken = ()
        except Exception:
            # Without this, a bug or one wrong row would end all looks, and no event would be sent any more.
            _log.exception("webhooks_not_seen")
            taken = ()
        for delivery in taken:
            task = asyncio.create_task(self._send(delivery))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        if free and len(taken) == free:
            return
        if self._sending:
            await asyncio.wait(self._sending, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(POLL_S)

    async def _send(self, delivery: Delivery) -> None:
        try:
            data = await in_thread(self._data_of, delivery)
            if data is None:
                await in_thread(self._store.arrived, delivery)
                return
            error, is_gone = await self._attempt(delivery, data)
            if not error:
                await in_thread(self._store.arrived, delivery)
            elif is_gone:
                await in_thread(self._store.gone, delivery, error)
                _log.warning("webhook_disabled", webhook=delivery.webhook.webhook_id)
            else:
                await self._failed(delivery, error)
        except DubstageError as problem:
            # The delivery is sent again when its lease has ended.
            _log.warning("webhook_not_written", event_id=delivery.event_id, reason=problem.reason, message=problem.message)
        except Exception:
            # Without this, a bug would hide until somebody asks where the events are.
            _log.exception("webhook_not_sent", event_id=delivery.event_id)

    async def _attempt(self, delivery: Delivery, data: Mapping[str, Any]) -> tuple[str, bool]:
        """Return why an attempt failed, empty for one that arrived; and whether the receiver wants no more events."""
        try:
            async with asyncio.timeout(self._deadline_s):
                # The addresses are looked up and checked for each attempt, and the connection goes to one of these addresses.
                target = await checked_target(delivery.webhook.url, self._networks)
                body = body_of(delivery, data)
                status = await post(target, body, headers_of(delivery, body, datetime.datetime.now(datetime.UTC)))
        except TimeoutError:
            return f"no answer within {self._deadline_s:g} s", False
        except DubstageError as problem:
            return problem.message, False
        except (OSError, h11.ProtocolError) as problem:
            return _why(problem), False
        return ("" if 200 <= status < 300 else f"status {status}"), status == _GONE

    async def _failed(self, delivery: Delivery, error: str) -> None:
        failed = delivery.attempts + 1
        again = pause_s(failed, self._retry_s, random.random()) if failed < self._attempts else None
        await in_thread(lambda: self._store.failed(delivery, error, again_in_s=again))
        if again is None:
            _log.warning("webhook_given_up", webhook=delivery.webhook.webhook_id, event_id=delivery.event_id, error=error)
