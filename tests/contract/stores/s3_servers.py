"""A real S3 over HTTP in a process of its own, and what can go wrong on the way to it."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import botocore.config
import pytest

from tests.contract.ports import free_port

KEY, SECRET = "AKIATESTKEY", "the-secret-of-the-tests"
BUCKET = "videos"


@dataclass(frozen=True)
class S3Server:
    """Address of the server, and a client that looks behind the store's back."""

    endpoint: str
    client: Any

    def all_keys(self, bucket: str = BUCKET) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


def client_of(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


@contextlib.contextmanager
def running_s3(**environment: str) -> Iterator[S3Server]:
    """A server with one bucket."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "tests.contract.stores.moto_server", str(port)]
    environment = {**os.environ, "MOTO_PORT": str(port), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            endpoint = f"http://127.0.0.1:{port}"
            wait_for(endpoint, process)
            server = S3Server(endpoint, client_of("s3", endpoint))
            server.client.create_bucket(Bucket=BUCKET)
            yield server
        finally:
            process.kill()


def wait_for(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=30):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The S3 of the session."""
    with running_s3() as server:
        yield server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets credentials and endpoint as a deployment does, by the environment; nothing of them stays."""
    from s3fs import S3FileSystem

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    # No look at the address where a cloud's machines find their credentials.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)

    def give(endpoint: str, *, key: str = KEY, secret: str = SECRET) -> None:
        S3FileSystem.clear_instance_cache()
        given = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        for name, value in given.items():
            if value:
                monkeypatch.setenv(name, value)
            else:
                monkeypatch.delenv(name, raising=False)

    yield give
    S3FileSystem.clear_instance_cache()


class Proxy:
    """Passes TCP on until it is told to cut: then open connections break, and new ones are closed as soon as they come."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._cuts = 0
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self, connections: int = 1 << 30) -> None:
        """Break what is open, and the next connections."""
        self._cuts = connections
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        self._cuts = 0

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                if self._cuts:
                    self._cuts -= 1
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target_port))
                for source, sink in ((near, far), (far, near)):
                    self._open.add(source)
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


class _QuietHandler(BaseHTTPRequestHandler):
    # HTTP/1.0 has no "continue" for a client that asks before it sends.
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return


@contextlib.contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve HTTP on a free port of the loopback; gives the endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def answering(status: int, code: str) -> Iterator[tuple[str, list[str]]]:
    """An S3 that holds nothing and answers every write with one error; gives its endpoint and the requests that came."""
    seen: list[str] = []

    class Handler(_QuietHandler):
        def answer(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fails = self.command == "PUT"
            body = f"<Error><Code>{code if fails else 'NoSuchKey'}</Code><Message>as told</Message></Error>".encode()
            self.send_response(status if fails else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = answer

    with _serving(Handler) as endpoint:
        yield endpoint, seen


@contextlib.contextmanager
def without_conditions(endpoint: str) -> Iterator[str]:
    """Passes requests on to an S3, as an older server: a PUT with If-None-Match is not implemented. Gives the endpoint."""

    class Handler(_QuietHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, found = 501, "application/xml", b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"
            if not (self.command == "PUT" and "If-None-Match" in self.headers):
                near = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=60)
                near.request(self.command, self.path, body, dict(self.headers))
                reply = near.getresponse()
                status, kind, found = reply.status, reply.getheader("Content-Type", ""), reply.read()
                length = reply.getheader("Content-Length") or str(len(found))
                near.close()
            else:
                length = str(len(found))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(found)

        do_GET = do_PUT = do_HEAD = do_DELETE = answer

    with _serving(Handler) as own:
        yield own
