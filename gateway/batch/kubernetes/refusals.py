"""Errors of the Kubernetes API as errors of dubstage, each with what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from services.common.errors import (
    BackendUnavailable,
    ClusterRefused,
    DubstageError,
    InvalidRequest,
    Overloaded,
    StageDeadlineExceeded,
    Unauthenticated,
)

_MOST_TEXT: Final = 500


class VersionExpiredError(Exception):
    """The API no longer has the resource version that a watch asked for (410): list again."""


@dataclass(frozen=True, slots=True)
class Call:
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


def refusal(status: int, body: str, call: Call, host: str) -> DubstageError:  # noqa: PLR0911 - one error for each status
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
            return Unauthenticated(
                f"the cluster {host} does not know the caller: log in again, or choose another kubeconfig or --context ({said})",
                field="context",
            )
        case 403 if "quota" in said or "admission" in said or "denied the request" in said or "PodSecurity" in said:
            return ClusterRefused(f"the cluster {host} refuses to {call}: {said}", subject=call.namespace)
        case 403:
            group = f'apiGroups: ["{call.group}"], ' if call.group else 'apiGroups: [""], '
            return ClusterRefused(
                f"the cluster {host} does not allow this account to {call}: the Role needs {{{group}resources: [{call.resource}], "
                f"verbs: [{call.verb}]}}; the chart makes it with batch.enabled, for the accounts in batch.subjects "
                f"and, with gateway.batchesOnKubernetes, for its gateway ({said})",
                subject=call.namespace,
            )
        case 404 if call.resource == "configmaps":
            return InvalidRequest(
                f"namespace {call.namespace} of the cluster {host} has no ConfigMap {call.name}: install the chart there with "
                "batch.enabled=true, or give --namespace and --config-map",
                field="config_map",
            )
        case 404:
            return ClusterRefused(
                f"cannot {call}: the cluster {host} has no such namespace or object: give --namespace ({said})",
                subject=call.namespace,
            )
        case 400 | 422:
            return ClusterRefused(
                f"the cluster {host} does not accept what it got to {call}: {said}: correct the values under batch of the chart",
                subject=call.namespace,
            )
        case 409:
            return ClusterRefused(f"cannot {call}: {said}", subject=call.namespace)
        case 429:
            return Overloaded(f"the cluster {host} has too many requests: {said}")
        case _:
            return BackendUnavailable(f"the cluster {host} failed to {call} (HTTP {status}): {said}")


def no_answer(error: Exception, call: Call, host: str) -> DubstageError:
    """Return the error for a call that got no answer: no connection, a cut connection, or no answer in time."""
    text = " ".join(str(error).split())[:_MOST_TEXT]
    if "timed out" in text.lower() or "timeout" in type(error).__name__.lower():
        return StageDeadlineExceeded(f"the cluster {host} did not answer in time (to {call}): {text}")
    if "certificate" in text.lower():
        return ClusterRefused(
            f"the certificate of the cluster {host} is not trusted: choose another kubeconfig ({text})", subject=host
        )
    return BackendUnavailable(
        f"the cluster {host} cannot be reached (to {call}): is the address right, and does the cluster run? ({text})"
    )


def _message(body: str) -> str:
    try:
        found = json.loads(body)
        text = str(found.get("message") or found.get("reason") or body) if isinstance(found, dict) else body
    except ValueError:
        text = body
    return " ".join(text.split())[:_MOST_TEXT] or "no reason given"
