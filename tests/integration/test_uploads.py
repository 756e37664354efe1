"""Files over the wire: callers that share no disk with the gateway upload, dub and download, over gRPC and over HTTP."""

import base64
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from dubstage.client import Connection, files, rpcs
from dubstage.client import gateway as client
from dubstage.gateway.v1 import media_pb2 as pb
from gateway.media import uploads
from gateway.settings import TENANTS_FOLDER
from tests.contract.ports import free_port
from tests.integration.client_calls import dubbing, until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.test_rest import Caller
from tests.integration.videos import OTHER, Media, write_short_clip
from tests.refusals import refusal, refused

TOKENS = {"erin": "token-of-erin-1234", "finn": "token-of-finn-1234"}
DATA = os.urandom(1_500_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
MOST_BYTES = 30_000_000


class Place:
    """A gateway with two tenants that have no media folder yet."""

    def __init__(self, running: RunningGateway, media: Path, port: int) -> None:
        self.running = running
        self.media = media
        self.port = port

    def connect(self, tenant: str = "erin") -> Connection:
        return self.running.connect(token=TOKENS[tenant])

    def http(self, tenant: str = "erin") -> Caller:
        return Caller(self.port, token=TOKENS[tenant])

    def uploads(self, tenant: str = "erin") -> Path:
        return self.media / TENANTS_FOLDER / tenant / uploads.FOLDER

    def uploads_in_flight(self) -> float:
        """Calls of UploadFile that run in the gateway."""
        labels = {"stage": "gateway", "rpc": "dubstage.gateway.v1.MediaService/UploadFile"}
        return self.running.server.metrics.registry.get_sample_value("dubstage_rpcs_in_flight", labels) or 0.0

    def received(self, name: str) -> int:
        """Size of erin's upload that is not whole."""
        file = self.uploads() / f"{uploads.PARTIAL}{name}"
        return file.stat().st_size if file.exists() else 0


@pytest.fixture(scope="module")
def place(module_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "media").mkdir()
    port, tokens = free_port(), [f"{tenant} {token}" for tenant, token in TOKENS.items()]
    running = module_gateway(tokens=tokens, media_dir=folder / "media", http_port=port, uploads_max_bytes=MOST_BYTES)
    return Place(running, folder / "media", port)


def pieces(data: bytes, size: int = 200_000) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_broken_upload_is_resumed(place: Place) -> None:
    """A connection that breaks leaves what came; the rest in a further call gives the same bytes."""

    def breaks() -> Iterator[bytes]:
        yield from pieces(DATA[:600_000])
        until(lambda: place.received("broken.mp4") == 600_000)
        raise ConnectionError("the cable was pulled")

    with place.connect() as connection:
        fields = {"name": "broken.mp4", "size_bytes": len(DATA), "sha256": SHA256}
        with pytest.raises(ConnectionError):
            files.upload_pieces(connection, breaks(), **fields)
    with place.connect() as connection:
        there = files.get_upload(connection, "broken.mp4")
        assert (there.received_bytes, there.complete, there.sha256) == (600_000, False, "")
        assert refusal(files.download, connection, there.name, "unused").code == "NOT_FOUND"
        rest = pieces(DATA[600_000:])
        found = files.upload_pieces(connection, rest, **fields, offset=600_000)
        assert (found.complete, found.sha256, found.name) == (True, SHA256, "uploads/broken.mp4")
    assert (place.uploads() / "broken.mp4").read_bytes() == DATA


def test_client_resumes_both_ways(place: Place, tmp_path: Path) -> None:
    source, target = tmp_path / "a video.mp4", tmp_path / "back.mp4"
    source.write_bytes(DATA)
    with place.connect() as connection:
        files.upload_pieces(connection, pieces(DATA[:400_000]), name="a_video.mp4", size_bytes=len(DATA))
        seen: list[int] = []
        found = files.upload(connection, source, progress=lambda done, total: seen.append(done))
        assert (found.name, found.complete, min(seen) > 400_000, seen[-1]) == ("uploads/a_video.mp4", True, True, len(DATA))
        # A file that is there is not sent again.
        assert files.upload(connection, source) == found
        (tmp_path / ".back.mp4.download").write_bytes(DATA[:300_000])
        assert files.download(connection, found.name, target).read_bytes() == DATA
        # The beginning of another file is thrown away.
        (tmp_path / ".back.mp4.download").write_bytes(b"another" * 1000)
        assert files.download(connection, found.name, target).read_bytes() == DATA
        assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_wrong_digest_leaves_nothing(place: Place) -> None:
    with place.connect() as connection:
        with refused(code="INVALID_ARGUMENT", field="sha256"):
            files.upload_pieces(connection, pieces(DATA), name="wrong.mp4", size_bytes=len(DATA), sha256="0" * 64)
        assert refusal(files.get_upload, connection, "wrong.mp4").reason == "FILE_NOT_FOUND"
    status, answer = place.http()("PUT", "/v1/uploads/wrong.mp4", DATA, **{"Repr-Digest": digest_of(b"other")})
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert [file.name for file in place.uploads().iterdir() if "wrong" in file.name] == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "../up.mp4"}, "name"),
        ({"name": ".hidden"}, "name"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"sha256": "abc"}, "sha256"),
        ({"offset": 5}, "offset"),
        ({"size_bytes": 10}, "data"),
    ],
)
def test_refused_uploads(place: Place, fields: dict[str, Any], field: str) -> None:
    given = {"name": "refused.mp4", "size_bytes": len(DATA), **fields}
    with place.connect() as connection, refused(code="INVALID_ARGUMENT", field=field):
        files.upload_pieces(connection, pieces(DATA), **given)


def test_quota_refuses_before_data(place: Place) -> None:
    with place.connect() as connection, refused(code="RESOURCE_EXHAUSTED", reason="TENANT_UPLOAD_BYTES"):
        files.upload_pieces(connection, (), name="large.mp4", size_bytes=MOST_BYTES + 1)
    status, answer = place.http()("PUT", "/v1/uploads/large.mp4", b"a", **{"Content-Range": f"bytes 0-0/{MOST_BYTES + 1}"})
    assert (status, answer["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")


def test_number_of_uploads_is_limited(start_gateway: StartGateway, tmp_path: Path) -> None:
    """Files that have begun count too, and a file that goes on does not count twice."""
    running = start_gateway(media_dir=tmp_path, uploads_max_files=2)
    with running.connect() as connection:
        for name in ("a.mp4", "b.mp4", "a.mp4"):
            files.upload_pieces(connection, [DATA[:10]], name=name, size_bytes=len(DATA))
        with refused(reason="TENANT_UPLOAD_BYTES"):
            files.upload_pieces(connection, (), name="c.mp4", size_bytes=1)
        files.delete_upload(connection, "b.mp4")
        files.upload_pieces(connection, [b"a"], name="c.mp4", size_bytes=1)


def test_other_tenants_files_are_missing(place: Place, tmp_path: Path) -> None:
    """Neither another tenant's upload, nor a file that is neither upload nor video, is sent."""
    with place.connect("erin") as erin, place.connect("finn") as finn:
        found = files.upload_pieces(erin, pieces(DATA), name="own.mp4", size_bytes=len(DATA))
        (place.uploads().parent / "secret.mp4").write_bytes(DATA)
        (place.uploads() / "link.mp4").symlink_to(place.media.parent / "tokens")
        paths = (found.name, f"../erin/{found.name}", f"file://{place.uploads()}/own.mp4", f"{TENANTS_FOLDER}/erin/{found.name}")
        for path in paths:
            assert refusal(files.download_pieces, finn, path).reason == "FILE_NOT_FOUND"
        for path in ("secret.mp4", "uploads/link.mp4", "uploads", "../../../tokens"):
            assert refusal(files.download_pieces, erin, path).reason == "FILE_NOT_FOUND"
        assert refusal(files.get_upload, finn, "own.mp4").reason == "FILE_NOT_FOUND"
        assert refusal(files.delete_upload, finn, "own.mp4").reason == "FILE_NOT_FOUND"
        assert "uploads/own.mp4" in [one.name for one in files.list_uploads(erin, page_size=1)]
        assert list(files.list_uploads(finn)) == []
        files.delete_upload(erin, "own.mp4")
        assert refusal(files.get_upload, erin, "own.mp4").reason == "FILE_NOT_FOUND"


def test_clients_that_leave_release_uploads(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves while its file is opened leaves no lock: the next upload of the name is accepted."""
    open_locked, opening, left = uploads._open_locked, Event(), Event()

    def opened_slowly(folder: int, name: str) -> int:
        opening.set()
        assert left.wait(20)
        time.sleep(0.2)  # until the gateway has noticed that the client left
        return open_locked(folder, name)

    def leaves() -> Iterator[pb.UploadFileRequest]:
        yield pb.UploadFileRequest(name="uploads/left.mp4", size_bytes=len(DATA))
        assert opening.wait(20)
        raise ConnectionError("the client left")

    with place.connect() as connection:
        with monkeypatch.context() as patch:
            patch.setattr(uploads, "_open_locked", opened_slowly)
            with pytest.raises(ConnectionError):
                connection.upload(rpcs.gateway.UPLOAD_FILE, leaves())
        left.set()
        until(lambda: not place.uploads_in_flight())
        files.upload_pieces(connection, pieces(DATA), name="left.mp4", size_bytes=len(DATA))


def test_upload_of_one_call_alone(place: Place) -> None:
    """While a call writes a file, another call for the same name is refused."""

    def slow() -> Iterator[bytes]:
        yield DATA[:1000]
        until(lambda: place.received("twice.mp4") == 1000)
        with place.connect() as other, refused(code="FAILED_PRECONDITION", reason="FILE_IN_USE"):
            files.upload_pieces(other, (), name="twice.mp4", size_bytes=len(DATA))
        yield from pieces(DATA[1000:])

    with place.connect() as connection:
        found = files.upload_pieces(connection, slow(), name="twice.mp4", size_bytes=len(DATA), sha256=SHA256)
        assert found.complete


def test_http_upload_is_resumed(place: Place) -> None:
    """A PUT whose connection breaks goes on with Content-Range, as `curl -T FILE -C OFFSET` sends it."""
    with socket.create_connection(("127.0.0.1", place.port), timeout=20) as broken:
        head = f"PUT /v1/uploads/http.mp4 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKENS['erin']}\r\n"
        broken.sendall(f"{head}Content-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:900_000])
        # The gateway holds back what is less than a piece.
        until(lambda: place.received("http.mp4") > 900_000 - uploads.PIECE_BYTES)
    call = place.http()
    status, found = call("GET", "/v1/uploads/http.mp4")
    assert (status, found["complete"]) == (200, False)
    offset = int(found["receivedBytes"])
    headers = {"Content-Range": f"bytes {offset}-{len(DATA) - 1}/{len(DATA)}", "Repr-Digest": digest_of(DATA)}

    def answered() -> bool:
        nonlocal status, found
        status, found = call("PUT", "/v1/uploads/http.mp4", DATA[offset:], **headers)
        # The gateway may not have noticed yet that the connection broke.
        return bool(status == 200)

    until(answered)
    assert (found["complete"], found["sha256"]) == (True, SHA256)
    assert (place.uploads() / "http.mp4").read_bytes() == DATA


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_resumes_both_ways(place: Place, tmp_path: Path) -> None:
    """The documented options of curl: -T, -C OFFSET with -T, and -C - for a download."""
    (tmp_path / "video.mp4").write_bytes(DATA)
    where = f"http://127.0.0.1:{place.port}/v1"

    def curl(*options: str) -> None:
        token = f"Authorization: Bearer {TOKENS['erin']}"
        subprocess.run(["curl", "-fsS", "-H", token, *options], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    with place.connect() as connection:
        files.upload_pieces(connection, [DATA[:500_000]], name="curl.mp4", size_bytes=len(DATA))
        curl("-C", "500000", "-T", "video.mp4", "-H", f"Repr-Digest: {digest_of(DATA)}", f"{where}/uploads/curl.mp4")
        assert files.get_upload(connection, "curl.mp4").sha256 == SHA256
    curl("-T", "video.mp4", f"{where}/uploads/curl.mp4")
    (tmp_path / "back.mp4").write_bytes(DATA[:123_456])
    curl("-C", "-", "-o", "back.mp4", f"{where}/files/uploads/curl.mp4")
    assert (tmp_path / "back.mp4").read_bytes() == DATA


def fetched(call: Caller, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    with call.open("GET", path, **headers) as response:
        return response, response.read()


def test_dub_over_http_alone(place: Place, media: Media) -> None:
    """A program on another machine uploads, dubs and downloads with HTTP alone; files that the dub uses stay."""
    call = place.http()
    for name, file in (("shot.mp4", media.root / OTHER), ("speech.wav", media.speech)):
        data = file.read_bytes()
        status, found = call("PUT", f"/v1/uploads/{name}", data, **{"Repr-Digest": digest_of(data)})
        assert (status, found["name"], found["complete"]) == (200, f"uploads/{name}", True)
    dub = {"footageUri": "uploads/shot.mp4", "speechUri": "uploads/speech.wav", "outputUri": "dubbed.mp4"}
    status, begun = call("POST", "/v1/dubs", {"dub": {**dub, "skipPersonalization": True}})
    assert status == 200
    status, answer = call("DELETE", "/v1/uploads/shot.mp4")
    assert (status, answer["error"]["details"][0]["reason"]) == (400, "FILE_IN_USE")
    assert call("GET", "/v1/files/dubbed.mp4")[0] == 404
    *_, last, end = call.events(f"/v1/{begun['name']}")
    assert (last[1]["done"], last[1]["response"]["outputUri"], end[0]) == (True, "dubbed.mp4", "end")

    response, whole = fetched(call, "/v1/files/dubbed.mp4")
    assert (response.status, response.headers["Repr-Digest"]) == (200, digest_of(whole))
    assert whole == (place.uploads().parent / "dubbed.mp4").read_bytes()
    size, etag = len(whole), response.headers["ETag"]
    for text, part in (("bytes=100-199", whole[100:200]), (f"bytes={size - 7}-", whole[-7:]), ("bytes=-20", whole[-20:])):
        response, data = fetched(call, "/v1/files/dubbed.mp4", Range=text, **{"If-Range": etag})
        assert (response.status, data) == (206, part)
    assert response.headers["Content-Range"] == f"bytes {size - 20}-{size - 1}/{size}"
    assert fetched(call, "/v1/files/dubbed.mp4", Range="bytes=5-9", **{"If-Range": '"other"'})[1] == whole
    response, data = fetched(call, "/v1/files/dubbed.mp4", Range=f"bytes={size}-")
    assert (response.status, json.loads(data)["error"]["status"]) == (416, "OUT_OF_RANGE")
    assert call("DELETE", "/v1/uploads/shot.mp4") == (200, {})
    assert place.http("finn")("GET", "/v1/files/dubbed.mp4")[0] == 404


def test_old_uploads_expire(start_gateway: StartGateway, media: Media, carphone: Path, tmp_path: Path) -> None:
    """A gateway removes old uploads at its start and every hour, but none that work uses."""
    folder = tmp_path / "media" / uploads.FOLDER
    folder.mkdir(parents=True)
    old, day = time.time() - 8 * 86400, time.time() - 2 * 86400
    for name, at in (("old.mp4", old), ("young.mp4", day), (".upload-partial.mp4", day)):
        (folder / name).write_bytes(b"1")
        os.utime(folder / name, (at, at))
    running = start_gateway(media_dir=tmp_path / "media")
    until(lambda: not (folder / "old.mp4").exists())
    assert sorted(file.name for file in folder.iterdir()) == ["young.mp4"]
    # Footage of this test's own: the blobs of the session's footage belong to the actors of another gateway.
    write_short_clip(carphone, folder / "used.mp4", 37, times=6, end=180)
    (folder / "speech.wav").write_bytes(media.speech.read_bytes())
    with running.connect() as connection:
        dub = client.dub(connection, **dubbing("out.mp4", footage="uploads/used.mp4", speech="uploads/speech.wav"))
        tenant = running.server._tenants.default  # type: ignore[attr-defined]
        for name in ("used.mp4", "young.mp4"):
            os.utime(folder / name, (old, old))
        tenant._uploads.expire()
        assert sorted(file.name for file in folder.iterdir()) == ["speech.wav", "used.mp4"]
        dub.cancel()
        until(lambda: bool(client.get_operation(connection, dub.name).done))
        tenant._uploads.expire()
        assert [file.name for file in folder.iterdir()] == ["speech.wav"]
