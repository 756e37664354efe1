"""A small Kubernetes API over HTTP: Jobs with versions, watches and bookmarks, pods, ConfigMaps, and faults.

It refuses what the schema of Kubernetes refuses. Tests play the controller: they set the status of Jobs.
"""

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

Object = dict[str, Any]
NAMESPACE = "dubbing"
_PATH = re.compile(r"/(?:api/v1|apis/batch/v1)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?")


@dataclass
class JobApi:
    """State of the API, and what tests do to it."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    version: int = 100
    oldest: int = 0
    """Changes up to this version are forgotten."""
    history: list[tuple[int, str, Object]] = field(default_factory=list)
    refused: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    """Status and message by verb and resource."""
    silent: bool = False
    """Whether requests get no answer."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Verb, path and query of all requests."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    watches: list[socket.socket] = field(default_factory=list)
    propagation: list[str] = field(default_factory=list)

    def put(self, resource: str, item: Object, kind: str = "MODIFIED") -> None:
        """Store an object, and tell the watches."""
        with self.changed:
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self.objects[resource, item["metadata"]["name"]] = item
            if resource == "jobs":
                self.history.append((self.version, kind, deepcopy(item)))
            self.changed.notify_all()

    def job(self, name: str) -> Object:
        """A Job."""
        return self.objects["jobs", name]

    def jobs(self) -> list[Object]:
        """All Jobs by name."""
        return [item for (resource, _), item in sorted(self.objects.items()) if resource == "jobs"]

    def set_status(self, name: str, **status: Any) -> None:
        """Write the status of a Job, as its controller does."""
        job = deepcopy(self.job(name))
        job["status"] = {**job.get("status", {}), **status}
        self.put("jobs", job)

    def finish(self, name: str, completed: str, failed: str = "") -> None:
        """End a Job."""
        kind, reason = ("Failed", "FailedIndexes") if failed else ("Complete", "CompletionsReached")
        ends = [{"type": kind, "status": "True", "reason": reason, "message": ""}]
        self.set_status(name, completedIndexes=completed, failedIndexes=failed, active=0, conditions=ends)

    def news(self, version: int) -> list[tuple[int, str, Object]]:
        """Changes after a version."""
        return [entry for entry in self.history if entry[0] > version]

    def bookmark(self) -> None:
        """Tell the watches the present version."""
        with self.changed:
            self.version += 1
            item = {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"resourceVersion": str(self.version)}}
            self.history.append((self.version, "BOOKMARK", item))
            self.changed.notify_all()

    def forget(self) -> None:
        """Forget all changes so far, so that older versions have expired."""
        with self.changed:
            self.version += 1
            self.oldest, self.history = self.version, []

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds of what was asked and stored."""
        with self.changed:
            assert self.changed.wait_for(condition, 60)

    def wait_for_watches(self, number: int) -> None:
        """Wait until so many watches were begun in all."""
        self.wait_for(lambda: self.count("watch") >= number)

    def cut(self) -> None:
        """Cut the connections of all watches."""
        with self.changed:
            for connection in self.watches:
                # A watch that has ended may have closed its connection.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.watches.clear()

    def count(self, verb: str) -> int:
        """How many requests there were with a verb."""
        return sum(item[0] == verb for item in self.requests)

    def queries(self, verb: str) -> list[dict[str, str]]:
        """Queries of the requests with a verb."""
        return [query for found, _, query in self.requests if found == verb]


class Handler(BaseHTTPRequestHandler):
    """Handler of one connection."""

    protocol_version = "HTTP/1.1"
    api: JobApi

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve("get")

    def do_POST(self) -> None:
        self._serve("create")

    def do_DELETE(self) -> None:
        self._serve("delete")

    def _serve(self, verb: str) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = _PATH.fullmatch(url.path)
        if found is None or found["namespace"] != NAMESPACE:
            return self._fail(404, f"namespaces {found['namespace'] if found else url.path!r} not found")
        if verb == "get" and not found["name"]:
            verb = "watch" if query.get("watch") == "true" else "list"
        with self.api.changed:
            self.api.requests.append((verb, url.path, query))
            self.api.changed.notify_all()
        while self.api.silent:
            threading.Event().wait(0.05)
        if refused := self.api.refused.get((verb, found["resource"])):
            return self._fail(*refused)
        return getattr(self, f"_{verb}")(found["resource"], found["name"], query, body)

    def _get(self, resource: str, name: str, *_: Any) -> None:
        item = self.api.objects.get((resource, name))
        self._answer(200, item) if item else self._fail(404, f'{resource} "{name}" not found')

    def _list(self, resource: str, _: str, query: dict[str, str], __: bytes) -> None:
        phase = query.get("fieldSelector", "").removeprefix("status.phase=")
        with self.api.changed:
            items = [
                item
                for (kind, _), item in self.api.objects.items()
                if kind == resource and _selected(item, query) and (not phase or item["status"]["phase"] == phase)
            ]
            answer = {"kind": "List", "metadata": {"resourceVersion": str(self.api.version)}, "items": deepcopy(items)}
        self._answer(200, answer)

    def _create(self, resource: str, _: str, query: dict[str, str], body: bytes) -> None:
        item = json.loads(body)
        name = item["metadata"]["name"]
        if query.get("fieldValidation") != "Strict":
            return self._fail(400, "the request does not ask for strict validation")
        try:
            kubernetes_validate.validate(item, "1.37", strict=True)
        except kubernetes_validate.ValidationError as problem:
            return self._fail(422, str(problem.message))
        if (resource, name) in self.api.objects:
            return self._fail(409, f'{resource}.batch "{name}" already exists')
        self.api.put(resource, item, "ADDED")
        return self._answer(201, item)

    def _delete(self, resource: str, name: str, query: dict[str, str], _: bytes) -> None:
        with self.api.changed:
            item = self.api.objects.pop((resource, name), None)
            if item is None:
                return self._fail(404, f'{resource} "{name}" not found')
            self.api.propagation.append(query.get("propagationPolicy", ""))
            self.api.version += 1
            item["metadata"]["resourceVersion"] = str(self.api.version)
            self.api.history.append((self.api.version, "DELETED", item))
            self.api.changed.notify_all()
        return self._answer(200, item)

    def _watch(self, _: str, __: str, query: dict[str, str], ___: bytes) -> None:
        api, version = self.api, int(query["resourceVersion"])
        with api.changed:
            api.watches.append(self.connection)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if version < api.oldest:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                self._event("ERROR", gone)
            else:
                self._follow(version, query)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _follow(self, version: int, query: dict[str, str]) -> None:
        api = self.api
        until = float(query["timeoutSeconds"])
        while True:
            with api.changed:
                if not api.changed.wait_for(lambda: api.news(version), until):  # noqa: B023
                    return
                news = api.news(version)
            version = news[-1][0]
            for _, kind, item in news:
                if kind == "BOOKMARK" or _selected(item, query):
                    self._event(kind, item)

    def _event(self, kind: str, item: Object) -> None:
        line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
        # In two chunks, as an event may arrive.
        for part in (line[: len(line) // 2], line[len(line) // 2 :]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()

    def _answer(self, status: int, item: Object) -> None:
        content = json.dumps(item).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _fail(self, status: int, message: str) -> None:
        self._answer(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message})


def _selected(item: Object, query: dict[str, str]) -> bool:
    wanted = dict(pair.split("=", 1) for pair in query["labelSelector"].split(",")) if "labelSelector" in query else {}
    return wanted.items() <= (item["metadata"].get("labels") or {}).items()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that went away is part of a test."""


def serve(api: JobApi) -> ThreadingHTTPServer:
    """Serve the API on a free port of this machine."""
    handler = type("Bound", (Handler,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server
