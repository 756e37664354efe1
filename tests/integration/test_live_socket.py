"""The WebSocket of live streams, from the sound of a client to the frames, and every end of a stream."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from wsproto import ConnectionType, WSConnection, events

from dubstage.client import gateway as gateway_client
from gateway.actors.store import ActorStore
from gateway.api.live_socket import FRAME_HEAD, MAX_MESSAGE_BYTES
from tests.contract.ports import free_port
from tests.integration.client_calls import until
from tests.integration.servers import LoopThread, RunningGateway, StartGateway
from tests.integration.test_live import Samples, with_the_actors_of
from tests.unit.consent.records import trusted

TOKEN = "token-of-the-studio"


class Client:
    """A WebSocket of a program, or of a browser with the headers of one."""

    def __init__(self, port: int, path: str = "/v1/live", host: str = "localhost", **headers: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: Iterator[Any] = iter(())
        extra = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.send(events.Request(host=f"{host}:{port}", target=path, extra_headers=extra))
        self.opened = self.next()

    def send(self, event: events.Event) -> None:
        self._socket.sendall(self._protocol.send(event))

    def next(self) -> Any:
        """The next event, with whole messages."""
        parts: list[Any] = []
        while True:
            for event in self._events:
                if not isinstance(event, (events.TextMessage, events.BytesMessage)):
                    return event
                parts.append(event.data)
                if event.message_finished:
                    return type(event)(data=parts[0][:0].join(parts))
            data = self._socket.recv(1 << 16)
            self._protocol.receive_data(data or None)
            self._events = self._protocol.events()

    def begin(self, actor: str, rate: int, **config: Any) -> None:
        """Send the config."""
        self.send(events.Message(json.dumps({"actor": f"actors/{actor}", "sampleRateHz": rate, "channels": 1, **config})))

    def speak(self, samples: np.ndarray[Any, Any]) -> None:
        """Send sound, as the page does."""
        pcm = np.round(32767 * samples).astype("<i2").tobytes()
        for first in range(0, len(pcm), 640):
            self.send(events.Message(pcm[first : first + 640]))

    def said(self) -> Any:
        """The JSON of the next message."""
        message = self.next()
        assert isinstance(message, events.TextMessage), message
        return json.loads(message.data)

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Door:
    gateway: RunningGateway
    port: int
    actor: str

    @contextmanager
    def open(self, path: str = "/v1/live", **headers: str) -> Iterator[Client]:
        with closing(Client(self.port, path, **headers)) as client:
            yield client

    @contextmanager
    def signed_in(self) -> Iterator[Client]:
        # The stream of the test before makes room.
        until(lambda: self.running == 0)
        with self.open(authorization=f"Bearer {TOKEN}") as client:
            assert isinstance(client.opened, events.AcceptConnection)
            yield client

    @property
    def running(self) -> int:
        return int(self.gateway.server.metrics.registry.get_sample_value("dubstage_live_streams") or 0)


@pytest.fixture(scope="module")
def door(
    gateway: RunningGateway,
    actor: str,
    gateway_factory: StartGateway,
    loop_thread: LoopThread,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    """A gateway that asks for tokens and takes one stream at a time."""
    folder, port = tmp_path_factory.mktemp("door"), free_port()
    (folder / "tokens").write_text(f"{TOKEN}\n")
    data = with_the_actors_of(gateway, folder)
    running = gateway_factory(http_port=port, auth_token_file=folder / "tokens", max_live_streams=1, data_dir=data)
    yield Door(running, port, actor)
    loop_thread.run(running.server.drain(grace_s=0))


def refusal(client: Client) -> tuple[int, dict[str, Any], str]:
    """Code, error and reason of a socket that the gateway closes."""
    error = client.said()["error"]
    closed = client.next()
    assert isinstance(closed, events.CloseConnection)
    return closed.code, error, closed.reason


def test_frames_equal_those_of_rpc(door: Door, samples: Samples) -> None:
    """The socket gives the frames that the RPC gives, as JPEG, with the record of the stream, and ends with 1000."""
    speech, rate = samples
    heard = np.round(32767 * speech[:rate]) / np.float32(32768)
    until(lambda: door.running == 0)
    with door.gateway.connect(token=TOKEN) as connection:
        expected = list(gateway_client.live(connection, [heard.astype(np.float32)], actor_id=door.actor, sample_rate_hz=rate))
    with door.signed_in() as client:
        client.begin(door.actor, rate, disclose=True)
        assert client.said() == {"ready": True}
        client.speak(speech[:rate])
        client.send(events.Message(b""))
        assert set(client.said()["disclosure"]) == {"xmp", "manifest"}
        for frame in expected:
            message = client.next().data
            assert FRAME_HEAD.unpack(message[: FRAME_HEAD.size])[0] == frame.frame_index
            picture = cv2.imdecode(np.frombuffer(message[FRAME_HEAD.size :], np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            assert np.abs(picture[..., ::-1].astype(int) - frame.picture).mean() < 3
        assert client.next().code == 1000
    with ActorStore(door.gateway.settings) as actors:
        assert actors.audit.newest(1, event="live.begun")[0]["actor_ids"] == [door.actor]


def test_pictures_have_chosen_quality(door: Door, samples: Samples) -> None:
    """A client on a slow network chooses smaller pictures."""
    speech, rate = samples
    sizes = []
    for quality in (90, 40):
        until(lambda: door.running == 0)
        with door.signed_in() as client:
            client.begin(door.actor, rate, jpegQuality=quality)
            assert client.said() == {"ready": True}
            client.speak(speech[: rate // 2])
            sizes.append(len(client.next().data))
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Bearer {TOKEN}", "origin": "https://example.com"}, 403),
    ],
)
def test_handshake_refused(door: Door, headers: dict[str, str], status: int) -> None:
    with door.open(**headers) as client:
        assert isinstance(client.opened, events.RejectConnection)
        assert client.opened.status_code == status


def test_cookie_counts_with_own_origin(door: Door) -> None:
    """The cookie of a page opens a socket for pages of the gateway only; other paths have none."""
    cookie = f"dubstage-{door.port}={base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip('=')}"
    own = f"http://localhost:{door.port}"
    for origin, status in ((own, 101), (f"{own}1", 403), ("null", 403), (None, 401)):
        headers = {"cookie": cookie, **({"origin": origin} if origin else {})}
        with door.open(**headers) as client:
            accepted = isinstance(client.opened, events.AcceptConnection)
            assert (101 if accepted else client.opened.status_code) == status, origin
    for path in ("/v1/actors", "/ui/static/live.js"):
        with door.open(path, cookie=cookie, origin=own) as client:
            assert client.opened.status_code == 404
    name = "xn--mnchen-3ya.example"
    with door.open(host=name, cookie=cookie, origin=f"http://{name}:{door.port}") as client:
        assert isinstance(client.opened, events.AcceptConnection)


@pytest.mark.parametrize("host", [b"\xe9", b"xn--0", b"xn--\xff", b"a" * 70])
def test_host_that_is_no_name_is_refused(door: Door, host: bytes) -> None:
    handshake = (
        b"GET /v1/live HTTP/1.1\r\nHost: " + host + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", door.port), timeout=60) as connection:
        connection.sendall(handshake)
        assert connection.recv(12) == b"HTTP/1.1 400"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"actor": "nobody"}, ""),
        ({"sampleRateHz": 7}, "config.sample_rate_hz"),
        ({"channels": 0}, "config.channels"),
        ({"jpegQuality": 101}, "config.jpeg_quality"),
        ({"no": "field"}, "config"),
        ({"\ud800": 1}, "config"),
        ({"labelPosition": float("inf")}, "config"),
    ],
)
def test_refused_config_is_said(door: Door, config: dict[str, Any], field: str) -> None:
    with door.signed_in() as client:
        client.begin(**{"actor": door.actor, "rate": 16000, **config})
        code, error, reason = refusal(client)
        assert code == 4000 + error["code"]
        assert error["message"].startswith(reason)
        fields = [violation["field"] for detail in error["details"] for violation in detail.get("fieldViolations", [])]
        assert fields == ([field] if field else [])


def test_first_message_must_be_config(door: Door) -> None:
    messages: list[Any] = [b"\0\0", "no JSON", "[" * 30_000]
    for message in messages:
        with door.signed_in() as client:
            client.send(events.Message(message))
            code, error, _ = refusal(client)
            assert (code, error["status"]) == (4400, "INVALID_ARGUMENT")


def test_wrong_sound_ends_the_stream(door: Door) -> None:
    """Half a sample and a text in place of sound are refused by name, and the stream makes room."""
    messages: list[Any] = [b"\0", "sound"]
    for message in messages:
        with door.signed_in() as client:
            client.begin(door.actor, 16000)
            assert client.said() == {"ready": True}
            client.send(events.Message(message))
            code, error, _ = refusal(client)
            assert (code, error["status"]) == (4400, "INVALID_ARGUMENT")
        until(lambda: door.running == 0)


def test_too_large_message_refused(door: Door) -> None:
    with door.signed_in() as client:
        client.begin(door.actor, 16000)
        assert client.said() == {"ready": True}
        client.send(events.Message(bytes(MAX_MESSAGE_BYTES + 2)))
        assert client.next().code == 1009
    until(lambda: door.running == 0)


def test_too_many_streams_say_when(door: Door) -> None:
    """A second stream is told when to come again, and the first goes on."""
    with door.signed_in() as first, door.open(authorization=f"Bearer {TOKEN}") as second:
        first.begin(door.actor, 16000)
        assert first.said() == {"ready": True}
        second.begin(door.actor, 16000)
        code, error, _ = refusal(second)
        assert (code, error["status"]) == (4429, "RESOURCE_EXHAUSTED")
        assert any("retryDelay" in detail for detail in error["details"])
        first.speak(np.zeros(16000, np.float32))
        assert isinstance(first.next(), events.BytesMessage)


@pytest.mark.parametrize("politely", [True, False])
def test_gone_client_ends_the_rpc(door: Door, samples: Samples, politely: bool) -> None:
    """A client that closes the socket, or just goes, in the middle of its sound makes room for another stream."""
    speech, rate = samples
    with door.signed_in() as client:
        client.begin(door.actor, rate)
        assert client.said() == {"ready": True}
        client.speak(speech[:rate])
        assert isinstance(client.next(), events.BytesMessage)
        assert door.running == 1
        if politely:
            client.send(events.CloseConnection(1001))
    until(lambda: door.running == 0)


def test_silent_stream_stays_open(door: Door, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket is no connection that waits for a request: a stream may be silent for longer than the head of a request may take."""
    monkeypatch.setattr("gateway.api.http_connections.HEAD_S", 0.2)
    speech, rate = samples
    with door.signed_in() as client:
        client.begin(door.actor, rate)
        assert client.said() == {"ready": True}
        time.sleep(1)
        client.speak(speech[:rate])
        assert isinstance(client.next(), events.BytesMessage)


def test_slow_client_fills_no_memory(door: Door, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that takes no frame stops the stream, and is not waited for."""
    monkeypatch.setattr("gateway.api.live_socket.FRAME_S", 2.0)
    speech, rate = samples
    with door.signed_in() as client:
        client.begin(door.actor, rate)
        assert client.said() == {"ready": True}
        # A second of sound comes back as 25 frames of 20 kB. The gateway reads no sound that it cannot answer.
        client._socket.settimeout(5)
        with pytest.raises(OSError, match=r"timed out|reset|pipe"):
            client.speak(np.tile(speech, 100))
        until(lambda: door.running == 0)


def test_unsigned_consent_refused(start_gateway: StartGateway, gateway: RunningGateway, actor: str, tmp_path: Path) -> None:
    """A gateway that requires signed consent records does not show a person without one, and asks for no sound."""
    port = free_port()
    keys = trusted(tmp_path / "keys")
    start_gateway(http_port=port, require_consent="signed", consent_keys=keys, data_dir=with_the_actors_of(gateway, tmp_path))
    with closing(Client(port)) as client:
        client.begin(actor, 16000)
        code, error, _ = refusal(client)
        assert (code, error["status"]) == (4400, "FAILED_PRECONDITION")
        assert "signed" in error["message"]


def test_stopped_gateway_closes_sockets(
    start_gateway: StartGateway, stop_gateway: Any, gateway: RunningGateway, actor: str, tmp_path: Path
) -> None:
    """The end of the gateway ends a stream with an error that may be tried again."""
    port = free_port()
    stopped = start_gateway(http_port=port, data_dir=with_the_actors_of(gateway, tmp_path))
    with closing(Client(port)) as client:
        client.begin(actor, 16000)
        assert client.said() == {"ready": True}
        stop_gateway(stopped)
        code, error, _ = refusal(client)
        assert (code, error["status"]) == (4503, "UNAVAILABLE")
