"""Why pods of a batch wait, and why they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.batch.kubernetes.settings import Object

INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"
JOB_LABEL: Final = "batch.kubernetes.io/job-name"
_ORDINARY: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Reasons of a container that is about to start."""
_REMEDIES: Final = {
    "OOMKilled": "raise the memory limit of the profile",
    "Evicted": "raise the requests of the profile, or batch.scratchSize of the chart",
}
_TOO_LONG: Final = 124
"""Exit code of a worker that took longer than it may (job_spec)."""
_MOST_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class PodEnd:
    """How a pod ended, in words for a person."""

    reason: str


def pod_ends(pods: Iterable[Object]) -> dict[tuple[str, int], PodEnd]:
    """Return how failed pods ended, by name of the Job and index. The youngest pod of an index counts."""
    found: dict[tuple[str, int], PodEnd] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        metadata = pod["metadata"]
        index = (metadata.get("annotations") or {}).get(INDEX_ANNOTATION)
        job = (metadata.get("labels") or {}).get(JOB_LABEL)
        if job and index is not None and pod["status"].get("phase") == "Failed":
            found[job, int(index)] = PodEnd(_why_ended(pod["status"]))
    return found


def _why_ended(status: Object) -> str:
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended and not status.get("reason"):
            reason = str(ended.get("reason", ""))
            said = str(ended.get("message") or "").strip().rpartition("\n")[2][:_MOST_TEXT]
            if ended.get("exitCode") == _TOO_LONG:
                return "one attempt took longer than batch.shotSeconds of the chart"
            return _with_remedy(reason, f"exit code {ended.get('exitCode')}" + (f", {reason}" if reason else ""), said)
    reason = str(status.get("reason") or "the pod failed")
    return _with_remedy(reason, reason, str(status.get("message") or "")[:_MOST_TEXT])


def _with_remedy(reason: str, what: str, said: str) -> str:
    remedy = _REMEDIES.get(reason, "")
    return "; ".join(part for part in (f"{what}: {said}" if said else what, remedy) if part)


def waiting_notes(pods: Iterable[Object]) -> tuple[str, ...]:
    """Return why pods that have not started wait, such as an image that cannot be pulled: one line for each reason."""
    counts = Counter(reason for pod in pods if (reason := _why_waiting(pod["status"])))
    return tuple(f"{count} {'pod waits' if count == 1 else 'pods wait'}: {reason}" for reason, count in counts.most_common())


def _why_waiting(status: Object) -> str:
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in _ORDINARY:
            said = str(waiting.get("message") or "")[:_MOST_TEXT]
            return f"{waiting['reason']}: {said}" if said else str(waiting["reason"])
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {str(condition.get('message') or '')[:_MOST_TEXT]}"
    return ""
