"""Jobs of a batch: which rows go into which Job, what their status says about the rows, and why pods wait and ended. Pure.

A Job is an Indexed Job with one pod for each row, of batch/v1 of Kubernetes 1.29 or later (backoffLimitPerIndex and FailIndex are
on by default from there).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.batch.kubernetes.settings import JobSettings, Object, Profile
from gateway.batch.records import Failure, cancelled, failed
from gateway.batch.row_ranges import format_rows, parse_rows
from gateway.batch.types import MAX_ATTEMPTS, ShotRecord
from services.common.errors import UNDUBBED_EXIT_CODE, ClusterRefusedError, DubstageError, WorkCancelledError, leaves

MOST_COMPLETIONS: Final = 10_000
"""Most rows of one Job. Kubernetes allows 100,000 indexes without further bounds. With a tenth of that, the longest status of a Job
(every second index completed: 60 kB) stays far below etcd's limit of 1.5 MB, and one update of the status stays small."""
BATCH_LABEL: Final = "dubstage.io/batch"
ROUND_LABEL: Final = "dubstage.io/round"
SHARD_LABEL: Final = "dubstage.io/shard"
ROWS_ANNOTATION: Final = "dubstage.io/rows"
MANIFEST_ANNOTATION: Final = "dubstage.io/manifest-sha256"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
CONTAINER: Final = "worker"
COMPONENT: Final = "batch-worker"
_ERRORS: Final = {leaf.exit_code for leaf in leaves(DubstageError) if not leaf.retryable} - {WorkCancelledError.exit_code}
FINAL_EXIT_CODES: Final = sorted({*_ERRORS, UNDUBBED_EXIT_CODE})
"""Exit codes that another attempt meets again: wrong input, something that a person must change, our bug, no dubbed frame."""
INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"
JOB_LABEL: Final = "batch.kubernetes.io/job-name"
_INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
_ORDINARY: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Reasons of a container that is about to start."""
_REMEDIES: Final = {
    "OOMKilled": "raise the memory limit of the profile",
    "Evicted": "raise the requests of the profile, or batch.scratchSize of the chart",
}
_TOO_LONG: Final = 124
"""Exit code of a worker that `timeout` ended, because the worker took longer than the profile allows."""
_MOST_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One Job of a batch.

    Attributes:
        batch: name of the batch.
        manifest_sha256: digest of the manifest of the batch.
        round: 0 for the Jobs of the submission, 1, 2, ... for later Jobs of single rows (retry, or a resumed submission).
        shard: number of the Job in its round.
        rows: rows of the manifest, ascending. Index i of the Job is the row `rows[i]`.
        parallelism: most pods at the same time.
    """

    batch: str
    manifest_sha256: str
    round: int
    shard: int
    rows: tuple[int, ...]
    parallelism: int

    @property
    def name(self) -> str:
        """Name of the Job: at most 58 characters, for Kubernetes makes a host name of it and of an index (`-9999`)."""
        return f"dubstage-{self.batch}-{self.round}-{self.shard}"


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Request to the cluster for one batch, as the details of the batch keep it.

    Attributes:
        namespace: namespace of the Jobs.
        context: context of the kubeconfig; empty: the current one, or the cluster that the command runs in.
        config_map: ConfigMap with the settings.
        profile: profile of the pods.
        workers: pods at the same time; 0: the number of the settings.
        rounds: rows of the Jobs, by round and shard.
    """

    namespace: str
    context: str
    config_map: str
    profile: str
    workers: int
    rounds: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def details(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "namespace": self.namespace,
            "context": self.context,
            "config_map": self.config_map,
            "profile": self.profile,
            "workers": self.workers,
            "rounds": [[format_rows(rows) for rows in shards] for shards in self.rounds],
        }

    @classmethod
    def of(cls, details: dict[str, Any]) -> BatchPlan:
        """Return the plan that `details` wrote."""
        rounds = tuple(tuple(parse_rows(text) for text in shards) for shards in details["rounds"])
        return cls(**{**details, "rounds": rounds})

    def newest_job(self) -> dict[int, tuple[int, int]]:
        """Return round and shard of the newest Job of each row that has a Job."""
        return {row: (turn, shard) for turn, shards in enumerate(self.rounds) for shard, rows in enumerate(shards) for row in rows}


def shards_of(rows: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return the rows, ascending, in groups of at most MOST_COMPLETIONS."""
    ordered = sorted(set(rows))
    return tuple(tuple(ordered[begin : begin + MOST_COMPLETIONS]) for begin in range(0, len(ordered), MOST_COMPLETIONS))


def jobs_of(batch: str, manifest_sha256: str, turn: int, shards: Sequence[tuple[int, ...]], workers: int) -> list[JobPlan]:
    """Return the Jobs of one round.

    The Jobs share `workers` pods. Each Job has at least one, so a batch with more Jobs than workers has as many pods as Jobs.
    """
    shares = [workers // len(shards) + (number < workers % len(shards)) for number in range(len(shards))]
    return [
        JobPlan(batch, manifest_sha256, turn, number, rows, max(1, min(share, len(rows))))
        for number, (rows, share) in enumerate(zip(shards, shares, strict=True))
    ]


def pod_failure_policy() -> Object:
    """Return what becomes of a row whose pod failed, from the table of exit codes (services/common/errors.py).

    The first rule that matches counts.
    A pod that the cluster moved away, and a worker that was told to end (130: Kueue pre-empts, a person suspends the Job), did
    nothing wrong: they start again, and the attempt does not count. Errors that stay end their row at once, and no other row.
    All else (20, try again; 124, took too long; 137, killed) counts as an attempt.
    """
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": FINAL_EXIT_CODES}},
            {
                "action": "Ignore",
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [WorkCancelledError.exit_code]},
            },
        ]
    }


def job_of(plan: JobPlan, settings: JobSettings, profile: Profile, namespace: str) -> Object:
    """Return the Job of a plan as the JSON of batch/v1."""
    labels = {
        "app.kubernetes.io/name": "dubstage",
        "app.kubernetes.io/instance": settings.instance,
        "app.kubernetes.io/component": COMPONENT,
        "app.kubernetes.io/part-of": "dubstage",
        BATCH_LABEL: plan.batch,
        ROUND_LABEL: str(plan.round),
        SHARD_LABEL: str(plan.shard),
    }
    own = {"app.kubernetes.io/managed-by": "dubstage", **({QUEUE_LABEL: settings.queue} if settings.queue else {})}
    annotations = {MANIFEST_ANNOTATION: plan.manifest_sha256, ROWS_ANNOTATION: format_rows(plan.rows)}
    spec: Object = {
        "completionMode": "Indexed",
        "completions": len(plan.rows),
        "parallelism": plan.parallelism,
        # maxFailedIndexes stays unset: a bad row never ends the others.
        "backoffLimitPerIndex": MAX_ATTEMPTS - 1,
        "podFailurePolicy": pod_failure_policy(),
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": {
            "metadata": {"labels": {**settings.pod_labels, **labels}, "annotations": dict(settings.pod_annotations)},
            "spec": _pod(plan, settings, profile),
        },
    }
    if settings.queue:
        # Kueue starts the Job when the queue has room.
        spec["suspend"] = True
    metadata = {"name": plan.name, "namespace": namespace, "labels": {**labels, **own}, "annotations": annotations}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _pod(plan: JobPlan, settings: JobSettings, profile: Profile) -> Object:
    pod: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        # Without this line, a Service with the name dubstage would set DUBSTAGE_PORT.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            **settings.pod_ids,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_worker(plan, settings, profile)],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}}, *settings.volumes],
        **{str(name): value for name, value in profile.placement.items()},
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _time_limit(settings: JobSettings) -> tuple[str, ...]:
    """Return the program that ends a worker after its longest time, with exit code 124, which counts as an attempt.

    activeDeadlineSeconds of the pod would end the worker by SIGTERM, hence with 130, which does not count: a shot that hangs would
    hang for ever. With --foreground, a signal of the kubelet reaches the worker once; the second one would end the worker at once.
    """
    return ("timeout", "--foreground", f"--kill-after={max(1, settings.grace_seconds)}", str(settings.shot_seconds))


def _worker(plan: JobPlan, settings: JobSettings, profile: Profile) -> Object:
    own: dict[str, Any] = {
        "HOME": "/tmp",
        # The database knows a job by the path of its folder. Pods have separate disks, so each row needs a path of its own. The
        # next attempt of the row has the same path, and takes over the job's blobs.
        "DUBSTAGE_DATA_DIR": f"/tmp/dubstage/{plan.name}/$({_INDEX_VARIABLE})",
        # The disk of a pod ends with the pod, so that no other shot finds an analysis there.
        "DUBSTAGE_ANALYSIS_MAX_AGE_DAYS": "0",
    }
    # Kubernetes would add this variable at the end, and puts into a value only variables that come before it.
    index = {"name": _INDEX_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}}
    rows = ("--rows", format_rows(plan.rows))
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [*_time_limit(settings), *settings.command],
        # The kubelet puts the index of the pod in. The index counts the rows of the Job, and --rows says which rows they are.
        "args": ["batch", "run", plan.batch, "--index", f"$({_INDEX_VARIABLE})", *rows],
        "env": [index, *({"name": name, "value": value} for name, value in own.items()), *settings.env, *profile.env],
        "resources": dict(profile.resources),
        # The end of the log says why a worker failed that could not write its record.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, *settings.volume_mounts],
    }


@dataclass(frozen=True, slots=True)
class PodEnd:
    """How a pod ended, in words for a person."""

    reason: str


def pod_ends(pods: Iterable[Object]) -> dict[tuple[str, int], PodEnd]:
    """Return how failed pods ended, by name of the Job and index. The youngest pod of an index counts."""
    ends: dict[tuple[str, int], PodEnd] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        metadata = pod["metadata"]
        index = (metadata.get("annotations") or {}).get(INDEX_ANNOTATION)
        job = (metadata.get("labels") or {}).get(JOB_LABEL)
        if job and index is not None and pod["status"].get("phase") == "Failed":
            ends[job, int(index)] = PodEnd(_why_ended(pod["status"]))
    return ends


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


@dataclass(frozen=True, slots=True)
class JobState:
    """State of one Job of a batch.

    Attributes:
        name: name of the Job.
        key: round and shard.
        manifest_sha256: digest of the rows of the batch. Another digest: the Job is of another batch of the same name.
        rows: rows of the manifest by index.
        completed: rows whose pod ended with exit code 0.
        failed: rows that the cluster does not try again.
        active: pods that run or start.
        finished: whether the Job has ended, for better or worse.
        error: why the Job as a whole failed; empty: it did not.
        suspended: whether the Job waits for its queue or for a person.
        deleting: whether the Job is being removed.
    """

    name: str
    key: tuple[int, int]
    manifest_sha256: str
    rows: tuple[int, ...]
    completed: frozenset[int]
    failed: frozenset[int]
    active: int
    finished: bool
    error: str
    suspended: bool
    deleting: bool

    @property
    def live(self) -> bool:
        """Whether the Job may still start pods."""
        return not (self.finished or self.deleting)

    def open_rows(self) -> frozenset[int]:
        """Return the rows that the Job still works on."""
        return frozenset(self.rows) - self.completed - self.failed if self.live else frozenset()


def job_state(job: Object) -> JobState:
    """Return the state of a Job of a batch from its JSON (batch/v1)."""
    metadata, status = job["metadata"], job.get("status") or {}
    rows = parse_rows(metadata["annotations"][ROWS_ANNOTATION])
    ends = [item for item in status.get("conditions") or () if item["type"] in ("Complete", "Failed") and item["status"] == "True"]
    # A Job whose rows failed one by one has ended as it should: its other rows are completed.
    faults = [
        item
        for item in ends
        if item["type"] == "Failed" and item.get("reason") not in ("FailedIndexes", "MaxFailedIndexesExceeded")
    ]
    return JobState(
        name=metadata["name"],
        key=(int(metadata["labels"][ROUND_LABEL]), int(metadata["labels"][SHARD_LABEL])),
        manifest_sha256=str(metadata["annotations"].get(MANIFEST_ANNOTATION, "")),
        rows=rows,
        completed=_rows(rows, status.get("completedIndexes")),
        failed=_rows(rows, status.get("failedIndexes")),
        active=int(status.get("active") or 0),
        finished=bool(ends),
        error=f"{faults[0].get('reason', '')}: {faults[0].get('message', '')}" if faults else "",
        suspended=bool(job["spec"].get("suspend")),
        deleting="deletionTimestamp" in metadata,
    )


def _rows(rows: tuple[int, ...], indexes: str | None) -> frozenset[int]:
    return frozenset(rows[index] for index in parse_rows(indexes or "") if index < len(rows))


def merged(
    left: Mapping[int, ShotRecord],
    jobs: Mapping[tuple[int, int], JobState],
    newest: Mapping[int, tuple[int, int]],
    ends: Mapping[tuple[str, int], PodEnd],
    marked: Collection[str],
    now: str,
) -> dict[int, ShotRecord]:
    """Return the records of shots that have not ended with what the Jobs know and the workers could not write.

    The newest Job with the row of a shot decides: if the cluster gave the row up, the shot has failed; if nothing works on a row
    that a person cancelled, the shot is cancelled.

    Args:
        left: records of the store, by row.
        jobs: Jobs that the cluster has, by round and shard.
        newest: round and shard of the newest Job of each row.
        ends: how pods ended, by name of the Job and row.
        marked: ids of the shots that are marked as cancelled.
        now: the present time, RFC 3339.
    """
    records: dict[int, ShotRecord] = {}
    for row, record in left.items():
        job = jobs.get(newest[row]) if row in newest else None
        if job is not None and (row in job.failed or (job.error and row not in job.completed)):
            end = ends.get((job.name, row)) or PodEnd(job.error or "its pod failed too often")
            failure = Failure(f"the cluster gave the shot up: {end.reason}", ClusterRefusedError.exit_code)
            records[row] = failed(record, failure, 0.0, now)
        elif record.id in marked and (job is None or row not in job.open_rows()):
            records[row] = cancelled(record, now)
        else:
            records[row] = record
    return records
