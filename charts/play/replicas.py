"""The replicas of a Deployment on the machine's own network, where every server needs ports of its own."""

from __future__ import annotations

import copy
from typing import Any, Final

Document = dict[str, Any]

PORTS: Final = ("DUBSTAGE_PORT", "DUBSTAGE_METRICS_PORT", "DUBSTAGE_HEALTH_PORT")
"""Variables with the ports that a server of ours opens."""
STEP: Final = 100
"""Offset that is added to the ports of each further replica."""


def split_replicas(deployment: Document, changes: list[str]) -> list[Document]:
    """Return a Deployment with one replica for each replica. The first keeps its name, the second is NAME-2, and so on.

    podman would give the pods of one Deployment the same folders, and on the machine's own network the same ports.

    Args:
        deployment: as rendered; it is not changed.
        changes: gets a sentence for each further replica.

    Raises:
        ValueError: a further replica has a server whose ports no variable sets.
    """
    name, count = str(deployment["metadata"]["name"]), int(deployment["spec"].get("replicas", 1))
    split = []
    for number in range(1, count + 1):
        one = copy.deepcopy(deployment)
        split.append(one)
        if count == 1:
            break
        one["spec"]["replicas"] = 1
        if number == 1:
            continue
        one["metadata"]["name"] = f"{name}-{number}"
        moved = _move_ports(one, (number - 1) * STEP)
        changes.append(f"{name}: replica {number} of {count} is a Deployment of its own, {name}-{number}{moved}")
    return split


def _move_ports(deployment: Document, by: int) -> str:
    """Move the ports of the servers of a pod that is on the machine's network. Return what was moved."""
    pod = deployment["spec"]["template"]["spec"]
    if not pod.get("hostNetwork"):
        return ""
    moved = []
    for container in pod["containers"]:
        variables = [one for one in container.get("env", []) if one["name"] in PORTS]
        if container.get("ports") and not variables:
            raise ValueError(
                f"{deployment['metadata']['name']}/{container['name']}: the replicas would share a port of this machine, and none "
                f"of {', '.join(PORTS)} is set there: give the Deployment one replica"
            )
        for variable in variables:
            variable["value"] = str(int(variable["value"]) + by)
            moved.append(f"{variable['name']}={variable['value']}")
        for port in container.get("ports", []):
            port["containerPort"] += by
    return f", with {', '.join(moved)}" if moved else ""
