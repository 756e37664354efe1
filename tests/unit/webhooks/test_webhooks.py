"""Tests of the pauses between attempts, of the address check, and of the payload's size."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import h11
import pytest
from sqlalchemy.exc import IntegrityError

from gateway.database.session import Database
from gateway.settings import GatewaySettings
from gateway.webhooks import sender
from gateway.webhooks.addresses import checked_target, is_allowed, is_public, networks_of
from gateway.webhooks.sender import LONGEST_PAUSE_S, MAX_BODY_BYTES, WebhookSender, _why, body_of, pause_s
from gateway.webhooks.store import Delivery, EventType, Webhook, WebhookStore
from services.common.errors import BackendUnavailableError, InvalidRequestError


def test_default_attempts_take_a_day() -> None:
    settings = GatewaySettings()
    total_s = sum(pause_s(failed, settings.webhook_retry_s, 0.5) for failed in range(1, settings.webhook_attempts))
    assert 20 * 3600 < total_s < 28 * 3600


def test_pauses_double_within_jitter() -> None:
    assert [pause_s(failed, 5, 0.5) for failed in (1, 2, 3)] == [5, 10, 20]
    assert (pause_s(1, 5, 0), pause_s(1, 5, 1)) == (3.75, 6.25)
    assert pause_s(10_000, 5, 0.5) == LONGEST_PAUSE_S


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "168.63.129.16", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "100.100.100.200"),
        *("192.0.0.8", "192.0.0.9", "192.88.99.1", "240.0.0.1"),
        *("64:ff9b:1::1", "64:ff9b:1:ffff::808:808", "fec0::1", "::127.0.0.1", "::8.8.8.8", "3fff::1", "5f00::1", "100::1"),
        *("2001::1", "2001:db8::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "4000::1", "8000::1", "2002:c000:8::1"),
        *("::", "::1", "fe80::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::"),
    ],
)
def test_inner_address_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not is_allowed(ip_address(address), networks_of("192.168.9.0/24"), tls=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "2a00:1450::1", "64:ff9b::808:808", "2002:808:808::1"])
def test_public_address_needs_tls(address: str) -> None:
    assert is_allowed(ip_address(address), (), tls=True)
    assert not is_allowed(ip_address(address), (), tls=False)


@pytest.mark.parametrize(
    "problem",
    [
        h11.RemoteProtocolError("illegal status line: bytearray(b'SSH-2.0-inner-host')"),
        ConnectionRefusedError(111, "Connect call failed ('10.9.8.7', 443)"),
        OSError(113, "Connect call failed ('10.9.8.7', 443)"),
        ssl.SSLCertVerificationError(1, "certificate is not valid for 'inner-host'"),
        ConnectionResetError(104, "inner-host"),
    ],
)
def test_errors_repeat_nothing_of_receivers(problem: Exception) -> None:
    """Callers learn neither what an inner server answers, nor its address."""
    assert not re.search(r"inner|10\.9|SSH|\d", _why(problem))


def test_networks_of_setting_open() -> None:
    networks = networks_of("10.0.0.0/8, fd00::/8")
    assert is_allowed(ip_address("10.2.3.4"), networks, tls=False)
    assert is_allowed(ip_address("fd00::1"), networks, tls=False)
    assert not is_allowed(ip_address("192.168.0.1"), networks, tls=True)


@pytest.mark.parametrize("url", ["https://a..b/", "https://.example/", f"https://{'a' * 64}.example/"])
def test_no_names_of_hosts_are_refused(url: str) -> None:
    """A name that no host can have is the caller's mistake, and is not tried again."""
    with pytest.raises(InvalidRequestError, match="no name of a host"):
        asyncio.run(checked_target(url, ()))


def test_late_name_servers_stall_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work has its threads while the name servers of many webhooks do not answer."""
    answer = threading.Event()

    def late(*_: object, **__: object) -> list[object]:
        answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    async def look() -> None:
        lookups = [asyncio.create_task(checked_target(f"https://{number}.example/", ())) for number in range(100)]
        try:
            async with asyncio.timeout(30):
                await asyncio.sleep(0)
                await asyncio.to_thread(lambda: None)
            assert not any(lookup.done() for lookup in lookups)
        finally:
            answer.set()
            found = await asyncio.gather(*lookups, return_exceptions=True)
        assert {type(one) for one in found} == {BackendUnavailableError}

    monkeypatch.setattr(socket, "getaddrinfo", late)
    asyncio.run(look())


def test_large_event_has_its_name_alone() -> None:
    hook = Webhook(webhook_id="wh-0", url="", secret="", events=(EventType.BATCH_DONE,), created_at="", disabled=False)
    delivery = Delivery(
        number=1,
        webhook=hook,
        event_id="msg_0",
        event=EventType.OPERATION_DONE,
        subject="operations/0",
        created_at="2026-02-01T00:00:00+00:00",
        attempts=0,
        last_error="",
        dead=False,
    )
    body = body_of(delivery, {"x": "y" * MAX_BODY_BYTES})
    assert json.loads(body)["data"] == {"name": "operations/0", "truncated": True}


async def test_looks_go_on_after_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a statement, which is no error of dubstage, ends one look for deliveries alone."""
    looks, again = 0, threading.Event()

    def take(self: WebhookStore, limit: int) -> list[Delivery]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise IntegrityError("UPDATE", {}, ValueError("the key exists"))
        again.set()
        return []

    monkeypatch.setattr(WebhookStore, "take", take)
    monkeypatch.setattr(sender, "POLL_S", 0.01)
    with closing(Database("", tmp_path)) as database:
        events = WebhookSender(WebhookStore(database), lambda delivery: None, networks="", attempts=1, retry_s=1, deadline_s=1)
        sending = asyncio.create_task(events.run())
        assert await asyncio.to_thread(again.wait, 20)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
