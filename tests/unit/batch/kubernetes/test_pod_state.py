"""Why pods wait and why they ended, in words."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.batch.kubernetes.pod_state import pod_ends, waiting_notes


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


def test_the_youngest_pod_of_an_index_counts_and_strangers_do_not() -> None:
    older = failed(created="2026-01-01T00:00:00Z", reason="Evicted")
    younger = failed(created="2026-01-01T00:01:00Z", reason="NodeLost")
    stranger = {"metadata": {"name": "x"}, "status": {"phase": "Failed"}}
    found = pod_ends([younger, stranger, older])
    assert found.keys() == {("job", 0)}
    assert found["job", 0].reason == "NodeLost"


def test_pods_that_are_about_to_start_are_not_worth_a_word() -> None:
    starting = {"status": {"containerStatuses": container(waiting={"reason": "ContainerCreating"})}}
    assert waiting_notes([starting, {"status": {}}]) == ()
