import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from gateway.api import http_bodies, http_connections, rest
from tests.contract.ports import free_port
from tests.integration.client_calls import until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.test_access import Certificate, certificate  # noqa: F401  # a fixture
from tests.integration.videos import NUM_FRAMES, OTHER, Media

DUB = {"footageUri": OTHER, "speechUri": "speech.wav", "skipPersonalization": True}


class Caller:
    """A program that knows HTTP and JSON, and nothing of dubstage."""

    def __init__(self, port: int, *, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls

    @contextmanager
    def open(self, verb: str, path: str, body: Any = None, **headers: str) -> Iterator[http.client.HTTPResponse]:
        if self._tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=120, context=self._tls)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with closing(connection):
            connection.request(verb, path, data, {**self._headers, **headers})
            with connection.getresponse() as response:
                yield response

    def __call__(self, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        with self.open(verb, path, body, **headers) as response:
            return response.status, json.loads(response.read())

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Names and contents of Server-Sent Events, until the server ends the stream."""
        with self.open("GET", path, Accept="text/event-stream") as response:
            assert response.status == 200
            name = ""
            for line in response:
                key, _, value = line.decode().strip().partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)
                    name = ""


@pytest.fixture
def start_rest(start_gateway: StartGateway) -> Any:
    """Starts a gateway with HTTP, and returns the gateway and a caller."""

    def start(*, token: str = "", tls: ssl.SSLContext | None = None, **settings: Any) -> tuple[RunningGateway, Caller]:
        port = free_port()
        return start_gateway(http_port=port, **settings), Caller(port, token=token, tls=tls)

    return start


def test_whole_dub_over_http(start_rest: Any, media: Media) -> None:
    """A program that knows only HTTP enrols a person, dubs, watches the dub, reads the result and erases the person."""
    _, call = start_rest()
    assert call("GET", "/healthz") == (200, {"status": "SERVING"})
    record = {"subject": "driver", "grantedBy": "driver", "scope": "tests", "date": "2026-01-31", "reference": "box 7"}
    person = {"actorId": "over-http", "footageUri": OTHER, "skipPersonalization": True, "consent": record}
    status, begun = call("POST", "/v1/actors", person)
    assert status == 200
    *_, last, end = call.events(f"/v1/{begun['name']}")
    assert (last[1]["done"], last[1]["response"]["name"], end) == (True, "actors/over-http", ("end", {}))

    status, begun = call("POST", "/v1/dubs", {"dub": {**DUB, "outputUri": "over_http.mp4", "actor": "actors/over-http"}})
    assert status == 200
    events = list(call.events(f"/v1/{begun['name']}"))
    assert all(event["name"] == begun["name"] for _, event in events[:-1])
    status, found = call("GET", f"/v1/{begun['name']}")
    assert (status, found["done"]) == (200, True)
    assert found["response"]["@type"] == "type.googleapis.com/dubstage.gateway.v1.DubResult"
    assert found["response"]["numFrames"] == str(NUM_FRAMES - 8)
    assert (media.root / "over_http.mp4").is_file()

    status, listed = call("GET", "/v1/operations?pageSize=1&filter=done%3Dtrue")
    assert status == 200
    assert len(listed["operations"]) == 1
    status, listed = call("GET", "/v1/dubs?done=true&orderBy=DUB_ORDER_NEWEST")
    assert (status, [dub["name"] for dub in listed["dubs"]], listed["nextPageToken"]) == (200, [begun["name"]], "")
    assert call("DELETE", f"/v1/{begun['name']}") == (200, {})
    status, receipt = call("DELETE", "/v1/actors/over-http")
    assert (status, receipt["actor"]) == (200, "actors/over-http")
    assert call("GET", "/v1/actors") == (200, {"actors": [], "nextPageToken": ""})


@pytest.mark.long
def test_batch_over_http(start_rest: Any, media: Media) -> None:
    """A batch is submitted, watched and removed over HTTP."""
    _, call = start_rest()
    dub = {"footageUri": OTHER, "speechUri": "speech.wav", "outputUri": "row.mp4", "skipPersonalization": True}
    row, wrong = {"shotId": "one", "dub": dub}, {"shotId": "one", "dub": {**dub, "method": "none"}}
    status, mistakes = call("POST", "/v1/batches", {"batchId": "night", "rows": [wrong], "validateOnly": True})
    assert (status, [mistake["field"] for mistake in mistakes["mistakes"]]) == (200, ["method"])
    assert call("POST", "/v1/batches", {"batchId": "night", "rows": [row]})[0] == 200
    *_, last, end = call.events("/v1/batches/night:watch")
    assert (last[1]["batch"]["progress"]["numDone"], end[0]) == ("1", "end")
    status, shots = call("GET", "/v1/batches/night/shots?states=SHOT_STATE_DONE")
    assert (status, [shot["name"] for shot in shots["shots"]]) == (200, ["batches/night/shots/one"])
    status, one = call("GET", "/v1/batches/night/shots/one")
    assert (status, one["name"], one["risk"]) == (200, "batches/night/shots/one", shots["shots"][0]["risk"])
    place = {"width": 0.5, "height": 0.25}
    said = {"state": "REVIEW_STATE_REJECTED", "note": "<i>chin</i>", "frame": "3", "region": place}
    status, reviewed = call("POST", "/v1/batches/night/shots/one:review", said)
    assert (status, {name: reviewed["review"][name] for name in said}) == (200, {**said, "region": {"x": 0, "y": 0, **place}})
    path = "/v1/batches/night/shots?reviewStates=REVIEW_STATE_REJECTED&orderBy=SHOT_ORDER_RISK&thumbnails=true"
    (listed,) = call("GET", path)[1]["shots"]
    assert (listed["review"], listed["thumbnail"][:4]) == (reviewed["review"], "/9j/")
    assert call("GET", path.replace("REJECTED", "APPROVED"))[1]["shots"] == []
    assert call("POST", "/v1/batches/night/shots/one:review", {**said, "frame": "4000"})[0] == 400
    assert call("GET", "/v1/batches/night/shots/two")[0] == 404
    assert call("DELETE", "/v1/batches/night") == (200, {})


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "code", "field"),
    [
        ("POST", "/v1/dubs", {"dub": {**DUB, "outputUri": "../x.mp4"}}, 400, "INVALID_ARGUMENT", "dub.output_uri"),
        ("POST", "/v1/dubs", {"nothing": 1}, 400, "INVALID_ARGUMENT", "nothing"),
        ("POST", "/v1/dubs", {"dub": {**DUB, "seed": -1}}, 400, "INVALID_ARGUMENT", "dub.seed"),
        ("POST", "/v1/dubs", b"{", 400, "INVALID_ARGUMENT", "body"),
        ("POST", "/v1/dubs", b"[]", 400, "INVALID_ARGUMENT", "body"),
        ("POST", "/v1/dubs?seed=1", {}, 400, "INVALID_ARGUMENT", "seed"),
        ("GET", "/v1/actors?page_size=some", None, 400, "INVALID_ARGUMENT", "page_size"),
        ("GET", "/v1/actors?nothing=1", None, 400, "INVALID_ARGUMENT", "nothing"),
        ("GET", "/v1/dubs?orderBy=NEWEST", None, 400, "INVALID_ARGUMENT", "order_by"),
        ("GET", "/v1/operations/" + 32 * "0", None, 404, "NOT_FOUND", None),
        ("POST", "/v1/dubs", rb'{"\ud800":1}', 400, "INVALID_ARGUMENT", "body"),
        ("POST", "/v1/batches", b'{"engine":1e400}', 400, "INVALID_ARGUMENT", "body"),
        ("GET", "/v1/actors%0A", None, 404, "NOT_FOUND", None),
        ("GET", "/v1/%09actors/none", None, 404, "NOT_FOUND", None),
        ("GET", "/v1/nothing", None, 404, "NOT_FOUND", None),
        ("DELETE", "/v1/dubs", None, 405, "UNIMPLEMENTED", None),
    ],
)  # fmt: skip
def test_refusals_name_the_field(rest_gateway, verb, path, body, status, code, field) -> None:
    found, answer = rest_gateway(verb, path, body)
    assert (found, answer["error"]["code"], answer["error"]["status"]) == (status, status, code)
    violations = [one for detail in answer["error"]["details"] for one in detail.get("fieldViolations", ())]
    assert [one["field"] for one in violations] == ([] if field is None else [field])


@pytest.fixture(scope="module")
def rest_gateway(module_gateway: StartGateway) -> Caller:
    port = free_port()
    module_gateway(http_port=port, max_message_bytes=1 << 20)
    return Caller(port)


def test_too_large_body_is_refused(rest_gateway: Caller) -> None:
    status, answer = rest_gateway("POST", "/v1/dubs", {"dub": {**DUB, "outputUri": "x" * (1 << 20)}})
    assert (status, answer["error"]["details"][0]["reason"]) == (413, "MESSAGE_TOO_LARGE")


def test_published_document_is_openapi(rest_gateway: Caller) -> None:
    """The document validates, and has a path for every route and a text for every RPC with a comment."""
    status, document = rest_gateway("GET", "/openapi.json")
    assert status == 200
    validate(document)
    listed = {(verb.upper(), found["operationId"]) for path in document["paths"].values() for verb, found in path.items()}
    assert listed == {(route.verb, route.method.name) for route in rest.ROUTES}
    dub = document["components"]["schemas"]["dubstage.gateway.v1.DubSpec"]["properties"]
    assert dub["expressiveness"] | {"description": ""} == {
        "type": "number", "format": "double", "minimum": 0.5, "maximum": 1.5, "description": ""
    }  # fmt: skip
    assert "a file below the gateway's media folder" in dub["footageUri"]["description"].lower()
    examples = {
        found["operationId"]: body["application/json"]["example"]
        for path in document["paths"].values()
        for found in path.values()
        if "example" in (body := found.get("requestBody", {}).get("content", {})).get("application/json", {})
    }
    assert examples["CreateDub"] == {"dub": {"footageUri": "", "outputUri": ""}}
    assert examples["ReviewShot"] == {"state": "REVIEW_STATE_UNDECIDED"}


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_other_pages_are_refused(rest_gateway: Caller, headers: dict[str, str]) -> None:
    """A page of another site in the user's browser may start nothing, and read nothing by a name of its own."""
    status, answer = rest_gateway("POST", "/v1/dubs", {"dub": {**DUB, "outputUri": "evil.mp4"}}, **headers)
    assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")


def test_slow_callers_do_not_stay(rest_gateway: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that sends nothing, half a head, or half a body does not stay."""
    monkeypatch.setattr(http_connections, "HEAD_S", 0.3)
    for sent in (b"", b"POST /v1/dubs HTTP/1.1\r\nHost: "):
        with socket.create_connection(("127.0.0.1", rest_gateway.port), timeout=20) as silent:
            silent.sendall(sent)
            assert silent.recv(1) == b""
    monkeypatch.setattr(http_bodies, "BODY_S", 0.3)
    with socket.create_connection(("127.0.0.1", rest_gateway.port), timeout=20) as slow:
        slow.sendall(b"POST /v1/dubs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 400")


def test_tokens_and_tls(start_rest: Any, media: Media, certificate: Certificate, tmp_path: Path) -> None:  # noqa: F811
    """HTTP asks for the token and the certificate that gRPC asks for; each tenant sees its own operations."""
    (media.root / "no_video.mp4").write_text("this is not a video")
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-some-length\nstudio another-token-of-some-length\n")
    _, call = start_rest(
        token="a-token-of-some-length",
        tls=ssl.create_default_context(cafile=str(certificate.certificate)),
        auth_token_file=tokens,
        tls_certificate_file=certificate.certificate,
        tls_key_file=certificate.key,
    )
    assert call("GET", "/v1/actors")[0] == 200
    status, answer = call("GET", "/v1/actors", Authorization="Bearer wrong")
    assert (status, answer["error"]["details"][0]["reason"]) == (401, "UNAUTHENTICATED")
    status, begun = call("POST", "/v1/dubs", {"dub": {**DUB, "footageUri": "no_video.mp4", "outputUri": "no_video_out.mp4"}})
    assert status == 200
    other = {"Authorization": "Bearer another-token-of-some-length"}
    assert call("GET", f"/v1/{begun['name']}", **other)[0] == 404


def test_drain_ends_a_stream(start_rest: Any, stop_gateway: Any, media: Media, long_footage: str) -> None:
    """A gateway that stops ends the events of a dub that still runs."""
    running, call = start_rest()
    _, begun = call("POST", "/v1/dubs", {"dub": {**DUB, "footageUri": long_footage, "outputUri": "drained.mp4"}})
    events: list[tuple[str, Any]] = []
    reading = threading.Thread(target=lambda: events.extend(call.events(f"/v1/{begun['name']}")))
    reading.start()
    until(lambda: bool(events))
    stop_gateway(running)
    reading.join(timeout=30)
    assert not reading.is_alive()
    assert events[-1][0] == "error"
