"""Hostile requests to the pages and their routes: markup in names, paths outside, another tenant's shots, huge and slow senders."""

import re
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from dubstage.client import batch
from gateway.api import http_bodies
from gateway.ui import pages
from tests.contract.ports import free_port
from tests.integration.client_calls import batch_ended
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.test_rest import Caller
from tests.integration.videos import Media

TOKEN, OTHER_TOKEN = "token-of-studio-one", "token-of-studio-two"
MARKUP = "<img src=x onerror=document.title='owned'>.mp4"
IDLE_S = 2.0
SHOT = "/v1/batches/hostile/shots/shot"


@dataclass(frozen=True)
class Door:
    gateway: RunningGateway
    call: Caller
    other: Caller

    def text(self, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Status and text of a page."""
        with self.call.open(verb, path, body, **headers) as response:
            return response.status, response.read().decode()


@pytest.fixture(scope="module")
def door(module_gateway: StartGateway, media: Media, tmp_path_factory: pytest.TempPathFactory) -> Door:
    """A gateway with a batch of one shot that failed, whose footage has markup in its name."""
    port, tokens = free_port(), [TOKEN, f"other {OTHER_TOKEN}"]
    (media.root / MARKUP).write_bytes(b"no video")
    running = module_gateway(http_port=port, tokens=tokens, uploads_max_bytes=1 << 20, max_idle_s=IDLE_S)
    with running.connect(token=TOKEN) as connection:
        row = batch.row("shot", footage=MARKUP, output="hostile_dub.mp4")
        assert batch_ended(connection, "hostile", [row]).progress.num_failed == 1
    return Door(running, Caller(port, token=TOKEN), Caller(port, token=OTHER_TOKEN))


def test_markup_in_addresses_stays_text(door: Door) -> None:
    """Ids with markup in an address reach no page as markup, and no page allows a script of its own text."""
    cookie = {"Cookie": f"dubstage-{door.call.port}=dG9rZW4tb2Ytc3R1ZGlvLW9uZQ", "Sec-Fetch-Site": "same-origin"}
    evil = quote('"><script>alert(1)</script>', safe="")
    for path in (
        f"/ui/batches/{evil}",
        f"/ui/batches/{evil}/shots/{evil}",
        f"/ui/dubs/{evil}",
        f"/ui/{evil}",
        f"/ui/sign-in?next={evil}",
    ):
        with door.call.open("GET", path, **cookie) as response:
            assert "<script>alert" not in response.read().decode()
            policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
    status, shot = door.call("GET", SHOT)
    assert (status, shot["footageUri"]) == (200, MARKUP)
    status, text = door.text("GET", f"/ui/media/uploads/{quote(MARKUP)}", **cookie)
    assert (status, text.startswith("{")) == (404, True)


@pytest.mark.parametrize(
    "place",
    ["../secret.mp4", "/etc/passwd", "uploads/../../secret.mp4", "file:///etc/passwd", "a\0.mp4", "http://169.254.169.254/"],
)
def test_paths_outside_are_refused(door: Door, place: str) -> None:
    """Neither the rows of a batch nor a download name a file outside; the refusal names the field."""
    for field in ("footageUri", "speechUri", "outputUri", "consentUri"):
        row = {"shotId": "a", "dub": {"footageUri": MARKUP, "outputUri": "outside.mp4", field: place}}
        status, refusal = door.call("POST", "/v1/batches", {"batchId": "outside", "rows": [row]})
        fields = [one["field"] for detail in refusal["error"]["details"] for one in detail.get("fieldViolations", ())]
        wanted = re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", field)
        assert (status, fields[:1]) == (400, [f"rows[0].{wanted}"]), refusal
    for route in ("/ui/media/", "/v1/files/"):
        status, answer = door.text("GET", route + quote(place, safe=""))
        assert status in (400, 404)
        assert "root:" not in answer
    assert door.call("GET", "/v1/batches/outside")[0] == 404


def test_other_tenants_shots_look_absent(door: Door) -> None:
    """Another tenant cannot look at a shot, decide about it or dub it again, and the shot stays as it was."""
    before = door.call("GET", SHOT)
    calls = [
        ("GET", SHOT, None),
        ("GET", "/v1/batches/hostile/shots", None),
        ("POST", f"{SHOT}:review", {"state": "REVIEW_STATE_APPROVED"}),
        ("POST", "/v1/batches/hostile:retry", {"shotIds": ["shot"], "options": {"seed": 5}}),
        ("DELETE", "/v1/batches/hostile", None),
    ]
    for verb, path, body in calls:
        status, refusal = door.other(verb, path, body)
        assert (status, "no batch 'hostile'" in refusal["error"]["message"]) == (404, True), refusal
    assert door.call("GET", SHOT) == before


def test_huge_senders_get_a_sentence(door: Door) -> None:
    """An upload over the limit is refused before its bytes, and a sign-in with a huge form too."""
    with socket.create_connection(("127.0.0.1", door.call.port), timeout=60) as huge:
        size = f"Authorization: Bearer {TOKEN}\r\nContent-Length: {1 << 40}\r\n\r\n"
        head = f"PUT /v1/uploads/huge.mp4 HTTP/1.1\r\nHost: localhost\r\n{size}"
        huge.sendall(head.encode())
        with huge.makefile("rb") as sent:
            head = b"".join(iter(sent.readline, b"\r\n")).decode()
            length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
            answer = head + sent.read(int(length.partition(":")[2])).decode()
    assert answer.startswith(("HTTP/1.1 400", "HTTP/1.1 413", "HTTP/1.1 429")), answer
    # Other tests may have left uploads.
    assert re.search("the uploads of tenant default would take 10995[0-9]+ bytes, and may take 1048576", answer), answer
    status, page = door.text("POST", "/ui/sign-in", b"token=" + b"x" * (64 << 10))
    assert (status, "The form has more than 16 KiB." in page) == (413, True)
    options = {"shotIds": ["shot"] * 200_000}
    assert door.call("POST", "/v1/batches/hostile:retry", options)[0] in (400, 413)


def test_slow_senders_end(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads, forms and answers that stall end with a sentence or a closed connection, and others are served meanwhile."""
    monkeypatch.setattr(http_bodies, "BODY_S", IDLE_S)
    monkeypatch.setattr(pages, "FORM_S", IDLE_S)
    begun = time.monotonic()
    head = "{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN + "\r\nContent-Length: 1000\r\n\r\nx"
    slow = {
        path: socket.create_connection(("127.0.0.1", door.call.port), timeout=60)
        for path in ("PUT /v1/uploads/slow.mp4", "POST /v1/batches", "POST /ui/sign-in")
    }
    try:
        for path, connection in slow.items():
            connection.sendall(head.format(path).encode())
        assert door.call("GET", "/v1/batches")[0] == 200
        for path, connection in slow.items():
            assert not connection.recv(4096).startswith(b"HTTP/1.1 2"), path
    finally:
        for connection in slow.values():
            connection.close()
    assert time.monotonic() - begun < 45
    assert door.call("GET", "/v1/batches")[0] == 200
