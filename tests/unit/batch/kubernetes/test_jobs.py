"""Tests of Jobs: their rows and names, why pods wait and end, and the status of rows.

The Job is valid in every version of Kubernetes that dubstage supports, and one bad row never ends another. The status of Jobs is
merged with the records of the workers.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from gateway.batch.kubernetes.jobs import (
    INDEX_ANNOTATION,
    MOST_COMPLETIONS,
    BatchPlan,
    JobPlan,
    JobState,
    PodEnd,
    job_of,
    job_state,
    jobs_of,
    merged,
    pod_ends,
    shards_of,
    waiting_notes,
)
from gateway.batch.kubernetes.settings import JobSettings, read_settings
from gateway.batch.types import MAX_ATTEMPTS, ShotRecord, ShotState
from services.common import errors
from tests.kubernetes_objects import RESTRICTED, schemas_read_once

VERSIONS = ("1.29", "1.34", "1.35", "1.36", "1.37")
"""The first version that has all fields, and the last four."""
PLAN = JobPlan("night-1", "ab12", 0, 0, (0, 1, 2, 7), 2)
PLAIN = {
    "image": "dubstage/suite:0.1.0",
    "service_account": "dubstage-batch-worker",
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
NOW = "2026-01-02T03:04:05Z"


def test_jobs_have_bounded_rows() -> None:
    """Rows are cut into jobs of at most ten thousand."""
    shards = shards_of(range(25_000))
    assert [len(rows) for rows in shards] == [10_000, 10_000, 5_000]
    assert [row for rows in shards for row in rows] == list(range(25_000))
    assert len(shards_of(range(MOST_COMPLETIONS))) == 1


@pytest.mark.parametrize(("rows", "workers", "shares"), [(5, 2, [2]), (5, 50, [5]), (25_000, 7, [3, 2, 2]), (25_000, 2, [1, 1, 1])])
def test_the_jobs_share_the_workers(rows: int, workers: int, shares: list[int]) -> None:
    assert [job.parallelism for job in jobs_of("b", "d", 0, shards_of(range(rows)), workers)] == shares


def test_longest_name_fits_host_name() -> None:
    """The longest name leaves room for the index in a host name."""
    name = JobPlan("b" * 40, "d", 999, 9999, (0,), 1).name
    assert len(f"{name}-{MOST_COMPLETIONS - 1}") <= 63
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)


def test_two_batches_never_share_a_name() -> None:
    assert JobPlan("a-0", "d", 0, 0, (0,), 1).name != JobPlan("a", "d", 0, 0, (0,), 1).name
    assert JobPlan("a-1", "d", 0, 1, (0,), 1).name != JobPlan("a", "d", 1, 0, (0,), 1).name


def test_plan_is_stored_as_json() -> None:
    """The plan of a batch is kept as JSON."""
    plan = BatchPlan("dubbing", "studio", "dubstage-batch", "gpu", 3, (((0, 1, 2), (3, 9)), ((1,),)))
    assert BatchPlan.of(plan.details()) == plan
    assert plan.details()["rounds"] == [["0-2", "3,9"], ["1"]]


def test_newest_job_of_last_round() -> None:
    """The newest job of a row is that of the last round."""
    plan = BatchPlan("n", "", "c", "cpu", 0, (((0, 1), (2, 3)), ((3,),)))
    assert plan.newest_job() == {0: (0, 0), 1: (0, 0), 2: (0, 1), 3: (1, 0)}


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


def test_no_two_pods_share_paths() -> None:
    """Each row has a data folder of its own: the database knows a job by its path, and pods have separate disks."""

    def folder(plan: JobPlan, index: int) -> str:
        """Return the folder as the kubelet does, which puts in only variables that come before."""
        variables: dict[str, str] = {}
        for item in pod(job(plan=plan))["containers"][0]["env"]:
            named = item.get("value") or (str(index) if INDEX_ANNOTATION in item["valueFrom"]["fieldRef"]["fieldPath"] else "")
            variables[item["name"]] = re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), named)
        return variables["DUBSTAGE_DATA_DIR"]

    plans = [PLAN, replace(PLAN, shard=1), replace(PLAN, round=1), replace(PLAN, batch="night-2")]
    folders = {folder(plan, index) for plan in plans for index in range(3)}
    assert len(folders) == 12
    assert not any("$" in path for path in folders)
    assert folder(PLAN, 1) == folder(PLAN, 1)


def action_of(exit_code: int, *, disrupted: bool = False) -> str:
    """Return the action of the Job controller after a pod with an exit code: the first rule that matches; Count if none does."""
    for rule in job()["spec"]["podFailurePolicy"]["rules"]:
        conditions = rule.get("onPodConditions", ())
        if disrupted and any(item["type"] == "DisruptionTarget" for item in conditions):
            return str(rule["action"])
        if exit_code in rule.get("onExitCodes", {}).get("values", ()):
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize("leaf", errors.leaves())
def test_exit_codes_have_actions(leaf: type[errors.DubstageError]) -> None:
    """Every exit code of the error table has its action."""
    wanted = "Count" if leaf.retryable else "Ignore" if leaf is errors.WorkCancelledError else "FailIndex"
    assert action_of(leaf.exit_code) == wanted


def test_attempts_equal_local_attempts() -> None:
    """A row is given up alone after as many attempts as on one machine."""
    spec = job()["spec"]
    assert spec["backoffLimitPerIndex"] == MAX_ATTEMPTS - 1
    assert "maxFailedIndexes" not in spec
    assert "backoffLimit" not in spec
    assert action_of(137) == "Count"


def limited(seconds: int) -> subprocess.Popen[str]:
    """A worker below the time limit of the Job."""
    found = pod(job({**PLAIN, "shot_seconds": seconds}))["containers"][0]["command"]
    return subprocess.Popen([*found[:-1], sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)


def test_terminated_worker_exit_code() -> None:
    """A worker that is told to end keeps its exit code, and a worker that takes too long counts as an attempt."""
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


def test_failed_worker_keeps_exit_code() -> None:
    """A worker that failed or was killed keeps its exit code."""
    prefix = pod(job())["containers"][0]["command"][:-1]
    assert subprocess.run([*prefix, sys.executable, "-c", "raise SystemExit(10)"], check=False).returncode == 10
    killed = "import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([*prefix, sys.executable, "-c", killed], check=False).returncode in (137, -9)


@pytest.mark.parametrize("exit_code", [10, 12, 130, 137])
def test_evicted_pod_costs_no_attempt(exit_code: int) -> None:
    """A pod that the cluster moved away did nothing wrong."""
    assert action_of(exit_code, disrupted=True) == "Ignore"


def test_only_a_queue_suspends_a_job() -> None:
    assert "suspend" not in job()["spec"]
    queued = job(FULL)
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "dubs"
    assert "kueue.x-k8s.io/queue-name" not in queued["spec"]["template"]["metadata"]["labels"]


def test_pods_meet_restricted_standard() -> None:
    """Pods meet the restricted standard and have no token."""
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
        with pytest.raises(errors.InvalidRequestError, match=field):
            read_settings({"settings.json": json.dumps({**PLAIN, field: True})}, "dubstage-batch")
    placed = {**PLAIN, "profiles": {"cpu": {"placement": {"hostNetwork": True}}}}
    with pytest.raises(errors.InvalidRequestError, match="placement"):
        read_settings({"settings.json": json.dumps(placed)}, "dubstage-batch")


def test_the_gpu_profile_chooses_its_nodes() -> None:
    found = pod(job(FULL, "gpu"))
    assert found["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert found["runtimeClassName"] == "nvidia"
    assert found["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "DUBSTAGE_DEVICE", "value": "cuda"} in found["containers"][0]["env"]
    assert "nodeSelector" not in pod(job(FULL, "cpu"))


def test_undubbed_video_not_retried() -> None:
    """A video without a dubbed frame is not tried again."""
    assert action_of(errors.UNDUBBED_EXIT_CODE) == "FailIndex"


def job_in_cluster(rows: str = "10-14", turn: int = 0, **status: Any) -> JobState:
    labels = {"dubstage.io/round": str(turn), "dubstage.io/shard": "0"}
    metadata = {"name": f"job-{turn}", "labels": labels, "annotations": {"dubstage.io/rows": rows}}
    return job_state({"metadata": metadata, "spec": {}, "status": status})


def ended(kind: str, reason: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True", "reason": reason, "message": "words"}]


def test_indexes_are_rows_of_the_job() -> None:
    found = job_in_cluster("3,7,20-22", completedIndexes="0,2-3", failedIndexes="1", active=1)
    assert found.completed == {3, 20, 21}
    assert found.failed == {7}
    assert found.open_rows() == {22}


def test_a_job_without_a_status_has_not_begun() -> None:
    found = job_in_cluster()
    assert found.live
    assert found.open_rows() == set(range(10, 15))


@pytest.mark.parametrize(
    ("conditions", "finished", "error"),
    [
        ([], False, ""),
        ([{"type": "Suspended", "status": "True"}], False, ""),
        ([{"type": "Failed", "status": "False"}], False, ""),
        (ended("Complete", "CompletionsReached"), True, ""),
        (ended("Failed", "FailedIndexes"), True, ""),
        (ended("Failed", "PodFailurePolicy"), True, "PodFailurePolicy: words"),
    ],
)
def test_a_job_ends_by_its_conditions(conditions: list[dict[str, str]], finished: bool, error: str) -> None:
    found = job_in_cluster(conditions=conditions)
    assert (found.finished, found.error) == (finished, error)
    assert found.live is not finished


def states(
    records: list[ShotRecord], *jobs: JobState, newest: dict[int, tuple[int, int]], marked: tuple[str, ...] = ()
) -> list[str]:
    found = merged(dict(enumerate(records)), {item.key: item for item in jobs}, newest, {}, marked, NOW)
    return [record.state.value for record in found.values()]


def record(shot: str, state: ShotState = ShotState.WAITING) -> ShotRecord:
    return ShotRecord(id=shot, state=state)


def test_cluster_failure_shows_reason() -> None:
    """A row that the cluster gave up has failed with the reason."""
    records = [record("a", ShotState.RUNNING), record("b")]
    found = merged(
        dict(enumerate(records)),
        {(0, 0): job_in_cluster("0-1", failedIndexes="0")},
        {0: (0, 0), 1: (0, 0)},
        {("job-0", 0): PodEnd("killed")},
        (),
        NOW,
    )
    assert found[0].state is ShotState.FAILED
    assert (found[0].error, found[0].exit_code, found[0].ended_at) == ("the cluster gave the shot up: killed", 11, NOW)
    assert found[1] is records[1]


def test_failed_job_fails_open_rows() -> None:
    """A job that failed as a whole takes its open rows along."""
    failed = job_in_cluster("0-1", completedIndexes="0", conditions=ended("Failed", "DeadlineExceeded"))
    assert states([record("a"), record("b")], failed, newest={0: (0, 0), 1: (0, 0)}) == ["waiting", "failed"]


def test_only_the_newest_job_of_a_row_counts() -> None:
    old = job_in_cluster("0-1", failedIndexes="0-1")
    assert states([record("a"), record("b")], old, job_in_cluster("1", turn=1), newest={0: (0, 0), 1: (1, 0)}) == [
        "failed",
        "waiting",
    ]
    # The new Job is planned, and not created yet.
    assert states([record("a"), record("b")], old, newest={0: (0, 0), 1: (1, 0)}) == ["failed", "waiting"]


def test_idle_cancelled_row_ends() -> None:
    """A cancelled row ends when nothing works on it."""
    records = [record("a", ShotState.RUNNING)]
    newest = {0: (0, 0)}
    assert states(records, job_in_cluster("0"), newest=newest, marked=("a",)) == ["running"]
    assert states(records, newest=newest, marked=("a",)) == ["cancelled"]


def failed(index: int = 0, created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "labels": {"batch.kubernetes.io/job-name": "job"},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "creationTimestamp": created,
        },
        "status": {"phase": "Failed", **status},
    }


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "worker", "state": state}]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {"containerStatuses": container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            "exit code 137, OOMKilled; raise the memory limit of the profile",
        ),
        (
            {"containerStatuses": container(terminated={"exitCode": 1, "reason": "Error", "message": "first\nno such image\n"})},
            "exit code 1, Error: no such image",
        ),
        (
            {"containerStatuses": container(terminated={"exitCode": 124, "reason": "Error", "message": "step 7"})},
            "one attempt took longer than batch.shotSeconds of the chart",
        ),
        (
            {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
            "Evicted: The node was low on resource: ephemeral-storage.; "
            "raise the requests of the profile, or batch.scratchSize of the chart",
        ),
        ({}, "the pod failed"),
    ],
)
def test_how_a_pod_ended(status: dict[str, Any], reason: str) -> None:
    assert pod_ends([failed(**status)])["job", 0].reason == reason


def test_youngest_own_pod_counts() -> None:
    """The youngest pod of an index counts, and foreign pods do not."""
    older = failed(created="2026-01-01T00:00:00Z", reason="Evicted")
    younger = failed(created="2026-01-01T00:01:00Z", reason="NodeLost")
    stranger = {"metadata": {"name": "x"}, "status": {"phase": "Failed"}}
    found = pod_ends([younger, stranger, older])
    assert found.keys() == {("job", 0)}
    assert found["job", 0].reason == "NodeLost"


def test_starting_pods_are_not_reported() -> None:
    """Pods that are about to start are not worth a word."""
    starting = {"status": {"containerStatuses": container(waiting={"reason": "ContainerCreating"})}}
    assert waiting_notes([starting, {"status": {}}]) == ()
