"""The Job of some rows: valid in every version of Kubernetes that we support, strict, and one bad row never ends another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from gateway.batch.kubernetes.job_plan import JobPlan
from gateway.batch.kubernetes.job_spec import job_of
from gateway.batch.kubernetes.settings import JobSettings, read_settings
from gateway.batch.types import MAX_ATTEMPTS
from services.common import errors
from tests.kubernetes_objects import RESTRICTED, schemas_read_once

VERSIONS = ("1.29", "1.34", "1.35", "1.36", "1.37")
"""The first version that has all fields, and the last four."""
PLAN = JobPlan("night-1", "ab12", 0, 0, (0, 1, 2, 7), 2)
PLAIN = {
    "image": "dubstage/suite:0.1.0",
    "service_account": "dubstage-batch-worker",
    "batches_url": "s3://films/batches",
    "profiles": {"cpu": {"resources": {"limits": {"cpu": "4", "memory": "8Gi"}}}},
}
FULL = {
    **PLAIN,
    "image_pull_secrets": ["pull"],
    "env": [{"name": "DUBSTAGE_DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}}],
    "volumes": [{"name": "plates", "persistentVolumeClaim": {"claimName": "plates", "readOnly": True}}],
    "volume_mounts": [{"name": "plates", "mountPath": "/plates", "readOnly": True}],
    "pod_labels": {"dubstage.io/calls-stages": "true"},
    "pod_annotations": {"example.com/cost": "dubs"},
    "pod_ids": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
    "queue": "dubs",
    "profiles": {
        "cpu": {},
        "gpu": {
            "resources": {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1", "memory": "16Gi"}},
            "placement": {
                "nodeSelector": {"nvidia.com/gpu.present": "true"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "priorityClassName": "batch",
                "runtimeClassName": "nvidia",
            },
            "env": [{"name": "DUBSTAGE_DEVICE", "value": "cuda"}],
        },
    },
}


def job(document: dict[str, Any] = PLAIN, profile: str = "cpu", plan: JobPlan = PLAN) -> dict[str, Any]:
    settings = JobSettings.model_validate(document)
    return job_of(plan, settings, settings.profile(profile), "dubbing")


def pod(found: dict[str, Any]) -> dict[str, Any]:
    return dict(found["spec"]["template"]["spec"])


@pytest.fixture(scope="module", autouse=True)
def _schemas_read_once() -> Iterator[None]:
    with schemas_read_once():
        yield


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("document", "profile"), [(PLAIN, "cpu"), (FULL, "cpu"), (FULL, "gpu")])
def test_the_job_is_valid(version: str, document: dict[str, Any], profile: str) -> None:
    kubernetes_validate.validate(job(document, profile), version, strict=True)


def test_the_client_sends_every_field() -> None:
    from kubernetes.client import ApiClient, V1Job

    body = job(FULL, "gpu")
    assert ApiClient().sanitize_for_serialization(V1Job.from_dict(body)) == body


def test_each_index_knows_its_row() -> None:
    container = pod(job())["containers"][0]
    assert container["command"][-1] == "/opt/dubstage/bin/dubstage"
    assert container["args"] == ["batch", "run", "night-1", "--index", "$(JOB_COMPLETION_INDEX)", "--rows", "0-2,7"]
    assert job()["spec"]["completions"] == 4
    assert {"name": "DUBSTAGE_BATCHES_URL", "value": "s3://films/batches"} in container["env"]


def action_of(exit_code: int, *, disrupted: bool = False) -> str:
    """What the controller of Jobs does after a pod with an exit code: the first rule that matches; Count if none does."""
    for rule in job()["spec"]["podFailurePolicy"]["rules"]:
        conditions = rule.get("onPodConditions", ())
        if disrupted and any(item["type"] == "DisruptionTarget" for item in conditions):
            return str(rule["action"])
        if exit_code in rule.get("onExitCodes", {}).get("values", ()):
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("leaf", errors.leaves())
def test_every_exit_code_of_the_error_table_has_its_action(leaf: type[errors.DubstageError]) -> None:
    wanted = "Count" if leaf.retryable else "Ignore" if leaf is errors.Cancelled else "FailIndex"
    assert action_of(leaf.exit_code) == wanted


def test_a_row_is_given_up_alone_after_as_many_attempts_as_on_one_machine() -> None:
    spec = job()["spec"]
    assert spec["backoffLimitPerIndex"] == MAX_ATTEMPTS - 1
    assert "maxFailedIndexes" not in spec
    assert "backoffLimit" not in spec
    assert action_of(137) == "Count"


WORKER = """
import signal, sys, time
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
print("ready", flush=True)
while not signals:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(130 if len(signals) == 1 else 1)
"""
"""Ends as a worker does: with 130 after one SIGTERM, and at once after a second."""


def limited(seconds: int) -> subprocess.Popen[str]:
    """A worker below the time limit of the Job."""
    found = pod(job({**PLAIN, "shot_seconds": seconds}))["containers"][0]["command"]
    return subprocess.Popen([*found[:-1], sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)


def test_a_worker_that_is_told_to_end_keeps_its_exit_code_and_one_that_takes_too_long_counts_as_an_attempt() -> None:
    with limited(600) as told:
        assert told.stdout is not None
        assert told.stdout.readline() == "ready\n"
        told.send_signal(signal.SIGTERM)
        assert action_of(told.wait(60)) == "Ignore"
        assert told.returncode == 130
    # This one may be told to end before it is ready.
    with limited(1) as slow:
        assert action_of(slow.wait(60)) == "Count"
        assert slow.returncode == 124


def test_a_worker_that_failed_or_was_killed_keeps_its_exit_code() -> None:
    prefix = pod(job())["containers"][0]["command"][:-1]
    assert subprocess.run([*prefix, sys.executable, "-c", "raise SystemExit(10)"], check=False).returncode == 10
    killed = "import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([*prefix, sys.executable, "-c", killed], check=False).returncode in (137, -9)


@pytest.mark.parametrize("exit_code", [10, 12, 130, 137])
def test_a_pod_that_the_cluster_moved_away_did_nothing_wrong(exit_code: int) -> None:
    assert action_of(exit_code, disrupted=True) == "Ignore"


def test_only_a_queue_suspends_a_job() -> None:
    assert "suspend" not in job()["spec"]
    queued = job(FULL)
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "dubs"
    assert "kueue.x-k8s.io/queue-name" not in queued["spec"]["template"]["metadata"]["labels"]


def test_pods_meet_the_restricted_standard_and_have_no_token() -> None:
    found = pod(job(FULL, "gpu"))
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = found["containers"]
    assert container["securityContext"] == RESTRICTED
    writable = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert [mount["mountPath"] for mount in writable] == ["/tmp"]


def test_settings_cannot_loosen_the_security() -> None:
    for field in ("security_context", "host_network", "automount_token"):
        with pytest.raises(errors.InvalidRequest, match=field):
            read_settings({"settings.json": json.dumps({**PLAIN, field: True})}, "dubstage-batch")
    placed = {**PLAIN, "profiles": {"cpu": {"placement": {"hostNetwork": True}}}}
    with pytest.raises(errors.InvalidRequest, match="placement"):
        read_settings({"settings.json": json.dumps(placed)}, "dubstage-batch")


def test_the_gpu_profile_chooses_its_nodes() -> None:
    found = pod(job(FULL, "gpu"))
    assert found["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert found["runtimeClassName"] == "nvidia"
    assert found["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "DUBSTAGE_DEVICE", "value": "cuda"} in found["containers"][0]["env"]
    assert "nodeSelector" not in pod(job(FULL, "cpu"))


def test_a_film_without_a_dubbed_frame_is_not_tried_again() -> None:
    assert action_of(errors.UNDUBBED_EXIT_CODE) == "FailIndex"
