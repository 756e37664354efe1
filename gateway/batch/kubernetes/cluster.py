"""Calls of the Kubernetes API that batches need, through the official client. Each call has a time limit.

The API's errors become errors of dubstage with the remedy. The watch of Jobs outlives lost connections and expired versions.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from gateway.batch.kubernetes.settings import Object
from services.common.errors import (
    BackendUnavailableError,
    ClusterRefusedError,
    DubstageError,
    InvalidRequestError,
    OverloadedError,
    StageDeadlineExceededError,
    UnauthenticatedError,
)
from services.common.texts import Option, Text

_MOST_TEXT: Final = 500
CONNECT_S: Final = 5.0
READ_S: Final = 30.0
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Folder where a pod finds its token, its namespace and the authority of the API."""
_GONE: Final = 410


class VersionExpiredError(Exception):
    """The API no longer has the resource version that a watch asked for (410): list again."""


@dataclass(frozen=True, slots=True)
class ClusterCall:
    """One call of the API, for messages.

    Attributes:
        verb: verb of RBAC, such as `create`.
        resource: resource of RBAC, such as `jobs`.
        group: API group of the resource; empty: the core group.
        namespace: namespace of the object.
        name: name of the object; empty: the call is about several objects.
    """

    verb: str
    resource: str
    group: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f' {self.name}' if self.name else ''} in namespace {self.namespace}"


def api_error(status: int, body: str, call: ClusterCall, host: str) -> DubstageError:  # noqa: PLR0911 - one error for each status
    """Return the error for an answer of the API.

    Args:
        status: HTTP status.
        body: the answer, a Status object as JSON, or any text of a proxy.
        call: what was asked.
        host: address of the API.
    """
    said = _message(body)
    match status:
        case 401:
            return UnauthenticatedError(
                Text(
                    "the cluster {host} does not know the caller: log in again, or choose another kubeconfig or {context} ({said})",
                    host=host,
                    context=Option("context"),
                    said=said,
                ),
                field="context",
            )
        case 403 if "quota" in said or "admission" in said or "denied the request" in said or "PodSecurity" in said:
            return ClusterRefusedError(f"the cluster {host} refuses to {call}: {said}", subject=call.namespace)
        case 403:
            group = f'apiGroups: ["{call.group}"], ' if call.group else 'apiGroups: [""], '
            return ClusterRefusedError(
                f"the cluster {host} does not allow this account to {call}: the Role needs {{{group}resources: [{call.resource}], "
                f"verbs: [{call.verb}]}}; the chart makes it with batch.enabled, for the accounts in batch.subjects "
                f"and, with gateway.batchesOnKubernetes, for its gateway ({said})",
                subject=call.namespace,
            )
        case 404 if call.resource == "configmaps":
            return InvalidRequestError(
                Text(
                    "namespace {namespace} of the cluster {host} has no ConfigMap {name}: install the chart there with "
                    "batch.enabled=true, or give {option} and {config_map}",
                    namespace=call.namespace,
                    host=host,
                    name=call.name,
                    option=Option("namespace"),
                    config_map=Option("config_map"),
                ),
                field="config_map",
            )
        case 404:
            return ClusterRefusedError(
                Text(
                    "cannot {call}: the cluster {host} has no such namespace or object: give {option} ({said})",
                    call=call,
                    host=host,
                    option=Option("namespace"),
                    said=said,
                ),
                subject=call.namespace,
            )
        case 400 | 422:
            return ClusterRefusedError(
                f"the cluster {host} does not accept what it got to {call}: {said}: correct the values under batch of the chart",
                subject=call.namespace,
            )
        case 409:
            return ClusterRefusedError(f"cannot {call}: {said}", subject=call.namespace)
        case 429:
            return OverloadedError(f"the cluster {host} has too many requests: {said}")
        case _:
            return BackendUnavailableError(f"the cluster {host} failed to {call} (HTTP {status}): {said}")


def no_answer(error: Exception, call: ClusterCall, host: str) -> DubstageError:
    """Return the error for a call that got no answer: no connection, a cut connection, or no answer in time."""
    text = " ".join(str(error).split())[:_MOST_TEXT]
    if "timed out" in text.lower() or "timeout" in type(error).__name__.lower():
        return StageDeadlineExceededError(f"the cluster {host} did not answer in time (to {call}): {text}")
    if "certificate" in text.lower():
        return ClusterRefusedError(
            f"the certificate of the cluster {host} is not trusted: choose another kubeconfig ({text})", subject=host
        )
    return BackendUnavailableError(
        f"the cluster {host} cannot be reached (to {call}): is the address right, and does the cluster run? ({text})"
    )


def _message(body: str) -> str:
    try:
        status = json.loads(body)
        text = str(status.get("message") or status.get("reason") or body) if isinstance(status, dict) else body
    except ValueError:
        text = body
    return " ".join(text.split())[:_MOST_TEXT] or "no reason given"


class Cluster:
    """One namespace of a cluster. The methods block, and raise errors of dubstage that say what to do.

    Args:
        client: `kubernetes.client.ApiClient` with host and credentials.
        namespace: namespace of all objects.
        context: context of the kubeconfig that was asked for; empty: the current one.
        read_s: longest time between two bytes of an answer, seconds.
    """

    def __init__(self, client: Any, namespace: str, context: str = "", *, read_s: float = READ_S) -> None:
        from kubernetes.client import BatchV1Api, CoreV1Api

        self.namespace = namespace
        self.context = context
        self.host = str(client.configuration.host)
        self._batch = BatchV1Api(client)
        self._core = CoreV1Api(client)
        self._read_s = read_s

    def config_map(self, name: str) -> dict[str, str]:
        """Return the texts of a ConfigMap by key."""
        call = self._call("get", "configmaps", name, group="")
        config = self._json(call, lambda **more: self._core.read_namespaced_config_map(name, self.namespace, **more))
        return {str(key): str(text) for key, text in (config.get("data") or {}).items()}

    def create_job(self, job: Object) -> bool:
        """Create a Job. Unknown fields are refused. Return False if a Job of this name exists."""
        from kubernetes.client import ApiException

        call = self._call("create", "jobs", str(job["metadata"]["name"]))
        try:
            self._answer(
                call,
                lambda **more: self._batch.create_namespaced_job(self.namespace, cast(Any, job), field_validation="Strict", **more),
                passed_on=409,
            )
        except ApiException:
            return False
        return True

    def job(self, name: str) -> Object:
        """Return a Job."""
        call = self._call("get", "jobs", name)
        return self._json(call, lambda **more: self._batch.read_namespaced_job(name, self.namespace, **more))

    def jobs(self, selector: str) -> tuple[list[Object], str]:
        """Return the Jobs with some labels, and the version from which a watch sees all later changes."""
        call = self._call("list", "jobs")
        listing = self._json(call, lambda **more: self._batch.list_namespaced_job(self.namespace, label_selector=selector, **more))
        return list(listing.get("items") or ()), str((listing.get("metadata") or {}).get("resourceVersion") or "")

    def delete_job(self, name: str) -> None:
        """Remove a Job after its pods. A Job that is gone already is no error."""
        from kubernetes.client import ApiException

        call = self._call("delete", "jobs", name)
        try:
            self._answer(
                call,
                lambda **more: self._batch.delete_namespaced_job(name, self.namespace, propagation_policy="Foreground", **more),
                passed_on=404,
            )
        except ApiException:
            return

    def pods(self, selector: str, phase: Literal["Pending", "Failed"], limit: int) -> list[Object]:
        """Return at most `limit` pods with some labels in a phase."""
        call = self._call("list", "pods", group="")
        listing = self._json(
            call,
            lambda **more: self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, field_selector=f"status.phase={phase}", limit=limit, **more
            ),
        )
        return list(listing.get("items") or ())

    def watch_jobs(self, selector: str, version: str, seconds: int) -> Iterator[tuple[str, Object]]:
        """Yield the changes of Jobs after a version as (ADDED, MODIFIED, DELETED or BOOKMARK; Job), for `seconds` at most.

        Raises:
            VersionExpiredError: the API does not have the version any more.
            BackendUnavailableError, StageDeadlineExceededError: the connection was cut.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        call = self._call("watch", "jobs")
        try:
            response = self._answer(
                call,
                lambda **more: self._batch.list_namespaced_job(
                    self.namespace,
                    label_selector=selector,
                    resource_version=version,
                    watch=True,
                    allow_watch_bookmarks=True,
                    timeout_seconds=seconds,
                    **more,
                ),
                read_s=seconds + CONNECT_S,
                passed_on=_GONE,
            )
        except ApiException as gone:
            raise VersionExpiredError from gone
        try:
            for line in _lines(response.stream(amt=None)):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise self._ended(event["object"], call)
                yield event["type"], event["object"]
        except (HTTPError, OSError, ValueError) as cut:
            raise no_answer(cut, call, self.host) from cut
        finally:
            response.close()

    def _ended(self, status: Object, call: ClusterCall) -> Exception:
        code = int(status.get("code") or 0)
        return VersionExpiredError() if code == _GONE else api_error(code, json.dumps(status), call, self.host)

    def _call(self, verb: str, resource: str, name: str = "", *, group: str = "batch") -> ClusterCall:
        return ClusterCall(verb, resource, group, self.namespace, name)

    def _json(self, call: ClusterCall, request: Callable[..., Any]) -> Object:
        answer = self._answer(call, request)
        try:
            return dict(json.loads(answer.data))
        except ValueError as problem:
            raise no_answer(problem, call, self.host) from problem

    def _answer(self, call: ClusterCall, request: Callable[..., Any], *, read_s: float | None = None, passed_on: int = 0) -> Any:
        """Return the HTTP response of a request. An answer with the status `passed_on` is raised as ApiException."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return request(_preload_content=False, _request_timeout=(CONNECT_S, read_s or self._read_s))
        except ApiException as answer:
            if answer.status == passed_on:
                raise
            raise api_error(int(answer.status or 0), _text(answer.body), call, self.host) from answer
        except (HTTPError, OSError) as problem:
            raise no_answer(problem, call, self.host) from problem


def _text(body: Any) -> str:
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield whole lines. What a cut connection leaves of the last line is dropped."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from (line for line in whole if line.strip())


def connect(namespace: str = "", context: str = "", *, read_s: float = READ_S, account: Path = SERVICE_ACCOUNT) -> Cluster:
    """Connect to the cluster that the command runs in, or else to the one of the kubeconfig. No call is made yet.

    A kubeconfig that is named (`KUBECONFIG`, or a context) comes before the cluster that the command runs in.

    Args:
        namespace: namespace of the Jobs; empty: that of the pod, or of the context, or `default`.
        context: context of the kubeconfig; empty: the current one.
        read_s: longest time between two bytes of an answer, seconds.
        account: folder of the pod's service account.

    Raises:
        InvalidRequestError: the client is not installed, or there is no usable kubeconfig.
    """
    try:
        client: Any = importlib.import_module("kubernetes.client")
        config: Any = importlib.import_module("kubernetes.config")
        incluster: Any = importlib.import_module("kubernetes.config.incluster_config")
    except ImportError:
        raise InvalidRequestError(
            "the engine kubernetes needs its client: pip install 'dubstage-suite[kubernetes]'", field="engine"
        ) from None
    chosen = client.Configuration()
    inside = "KUBERNETES_SERVICE_HOST" in os.environ and not context and "KUBECONFIG" not in os.environ
    try:
        if inside:
            loader = incluster.InClusterConfigLoader(token_filename=str(account / "token"), cert_filename=str(account / "ca.crt"))
            loader.load_and_set(chosen)
            own_namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        else:
            # The client reads KUBECONFIG only once, when it is imported.
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(config_file=file, context=context or None, client_configuration=chosen)
            contexts, current = config.list_kube_config_contexts(config_file=file)
            entry = next((item for item in contexts if item["name"] == context), current)
            own_namespace = str((entry.get("context") or {}).get("namespace") or "")
    except Exception as problem:
        # A file that is no kubeconfig ends in any error of the client, or of its YAML parser.
        what = " ".join(str(problem).split())[:300]
        raise InvalidRequestError(
            Text(
                "no cluster to talk to: {what}: set KUBECONFIG to a kubeconfig, or give {context}, or run the command in a pod "
                "with the service account that the chart makes for batches; a gateway of the chart needs "
                "gateway.batchesOnKubernetes",
                what=what,
                context=Option("context"),
            ),
            field="context",
        ) from problem
    # Each call fails at once if it fails: `follow` decides when to try again.
    chosen.retries = False
    return Cluster(client.ApiClient(chosen), namespace or own_namespace or "default", context, read_s=read_s)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of a watch, seconds.

    Attributes:
        watch_s: length of one watch; whole seconds. After each watch the state is yielded again, changed or not.
        first_s: pause after the first failure. Each further failure doubles the pause.
        longest_s: longest pause.
        patience_s: time without any answer after which the watch gives up.
    """

    watch_s: int = 15
    first_s: float = 0.5
    longest_s: float = 30.0
    patience_s: float = 900.0


def follow(
    cluster: Cluster,
    selector: str,
    timing: Timing,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[dict[str, Object]]:
    """Yield the Jobs with some labels by name: at first, after each change, and at least every `timing.watch_s` seconds.

    The Jobs are listed, then watched from the version of the list. A watch that was cut goes on where it was. If the API does not
    have that version any more, the Jobs are listed again.

    Raises:
        DubstageError: the API refuses, or gave no answer for `timing.patience_s` seconds.
    """
    jobs: dict[str, Object] = {}
    version = ""
    pause, failing_since = timing.first_s, clock()
    while True:
        begun, events = clock(), 0
        try:
            if not version:
                items, version = cluster.jobs(selector)
                jobs = {item["metadata"]["name"]: item for item in items}
                failing_since = clock()
                yield dict(jobs)
            for kind, job in cluster.watch_jobs(selector, version, timing.watch_s):
                events, failing_since, pause = events + 1, clock(), timing.first_s
                version = job["metadata"]["resourceVersion"]
                if _changed(jobs, kind, job):
                    yield dict(jobs)
            failing_since = clock()
            yield dict(jobs)
            quick = not events and clock() - begun < timing.first_s
        except VersionExpiredError:
            version, quick = "", not events
        except DubstageError as error:
            if not error.retryable or clock() - failing_since > timing.patience_s:
                raise
            quick = True
        if quick:
            sleep(pause)
            pause = min(2 * pause, timing.longest_s)
        else:
            pause = timing.first_s


def _changed(jobs: dict[str, Object], kind: str, job: Object) -> bool:
    """Bring `jobs` up to date with one event, and return whether it changed. A bookmark tells only a version."""
    name = job["metadata"].get("name", "")
    if kind == "DELETED":
        return jobs.pop(name, None) is not None
    if kind in ("ADDED", "MODIFIED"):
        jobs[name] = job
        return True
    return False
