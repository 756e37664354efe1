"""The Job of some rows of a batch: an Indexed Job, one pod for each row. Pure: no call leaves this module.

The API is batch/v1 of Kubernetes 1.29 or later (backoffLimitPerIndex and FailIndex are on by default from there).
"""

from __future__ import annotations

from typing import Any, Final

from gateway.batch.kubernetes.job_plan import JobPlan
from gateway.batch.kubernetes.settings import JobSettings, Object, Profile
from gateway.batch.row_ranges import format_rows
from gateway.batch.types import MAX_ATTEMPTS
from services.common.errors import UNDUBBED_EXIT_CODE, Cancelled, DubstageError, leaves

BATCH_LABEL: Final = "dubstage.io/batch"
ROUND_LABEL: Final = "dubstage.io/round"
SHARD_LABEL: Final = "dubstage.io/shard"
ROWS_ANNOTATION: Final = "dubstage.io/rows"
MANIFEST_ANNOTATION: Final = "dubstage.io/manifest-sha256"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
CONTAINER: Final = "worker"
COMPONENT: Final = "batch-worker"

_ERRORS: Final = {leaf.exit_code for leaf in leaves(DubstageError) if not leaf.retryable} - {Cancelled.exit_code}
FINAL_EXIT_CODES: Final = sorted({*_ERRORS, UNDUBBED_EXIT_CODE})
"""Exit codes that another attempt meets again: wrong input, something that a person must change, our bug, no dubbed frame."""


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
                "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [Cancelled.exit_code]},
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
    own: dict[str, Any] = {"HOME": "/tmp", "DUBSTAGE_DATA_DIR": "/tmp/dubstage", "DUBSTAGE_BATCHES_URL": settings.batches_url}
    rows = ("--rows", format_rows(plan.rows))
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [*_time_limit(settings), *settings.command],
        # The kubelet puts the index of the pod in. The index counts the rows of the Job, and --rows says which rows they are.
        "args": ["batch", "run", plan.batch, "--index", "$(JOB_COMPLETION_INDEX)", *rows],
        "env": [*({"name": name, "value": value} for name, value in own.items()), *settings.env, *profile.env],
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
