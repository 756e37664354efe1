"""The chart's own output, and the part of the output that `podman kube play` can run."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from charts.play.replicas import Document, split_replicas

PLAYED: Final = ("ConfigMap", "Secret", "Deployment")
"""Kinds that podman makes something of. Services, autoscaling, disruption budgets, network policies, claims, accounts and what
belongs to operators need a cluster."""
SHARED_MEMORY: Final = "/dev/shm"


@dataclass(frozen=True, slots=True)
class Playable:
    """Manifests for podman.

    Attributes:
        documents: in the chart's order.
        skipped: names of what is left out, by kind.
        changes: what was changed in the documents, a sentence each.
        folders: on this machine, which stand for emptyDir volumes.
    """

    documents: list[Document]
    skipped: dict[str, list[str]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def render_chart(helm: str, chart: Path, values: Sequence[Path], settings: Sequence[str], release: str) -> list[Document]:
    """`helm template` of the chart.

    Args:
        helm: the program.
        values: files, later ones win.
        settings: `path=value` pairs, which win over the files.
        release: name of it.

    Raises:
        subprocess.CalledProcessError: helm refuses; its message is in `stderr`.
    """
    command = [helm, "template", release, str(chart)]
    for file in values:
        command += ["--values", str(file)]
    for pair in settings:
        command += ["--set", pair]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


def playable(documents: Sequence[Document], folder: Path, *, limit_memory: bool = True) -> Playable:
    """Leave out what podman has no counterpart for, split replicas, and put folders in the place of emptyDir volumes.

    podman before 4.4 knows no emptyDir, and later ones give it to root. An emptyDir in memory that is mounted on /dev/shm is left
    out altogether: the containers of a podman pod share one /dev/shm as it is.

    Args:
        documents: as rendered; they are not changed.
        folder: takes the folders.
        limit_memory: False where podman cannot: without root on cgroup v1, for one.

    Raises:
        ValueError: replicas on the machine's network would share a port.
    """
    result = Playable([])
    for rendered in documents:
        document = copy.deepcopy(rendered)
        kind, name = str(document["kind"]), str(document["metadata"]["name"])
        if kind not in PLAYED or "helm.sh/hook" in document["metadata"].get("annotations", {}):
            result.skipped.setdefault(kind, []).append(name)
            continue
        # The namespace belongs to the cluster; podman has none.
        document["metadata"].pop("namespace", None)
        if kind != "Deployment":
            result.documents.append(document)
            continue
        for one in split_replicas(document, result.changes):
            own, pod = str(one["metadata"]["name"]), one["spec"]["template"]["spec"]
            _replace_empty_volumes(own, pod, folder, result)
            _leave_out_ports(own, pod, result)
            if not limit_memory:
                _leave_out_memory(own, pod, result)
            result.documents.append(one)
    return result


def _replace_empty_volumes(name: str, pod: Document, folder: Path, result: Playable) -> None:
    kept = []
    for volume in pod.get("volumes", []):
        if "emptyDir" not in volume:
            kept.append(volume)
            continue
        mounts = [mount for _, mount in _mounts(pod) if mount["name"] == volume["name"]]
        if mounts and all(mount["mountPath"] == SHARED_MEMORY for mount in mounts):
            for container, mount in list(_mounts(pod)):
                if mount["name"] == volume["name"]:
                    container["volumeMounts"].remove(mount)
            result.changes.append(f"{name}: emptyDir {volume['name']!r} on {SHARED_MEMORY} left to the pod's own")
            continue
        place = folder / f"{name}-{volume['name']}"
        kept.append({"name": volume["name"], "hostPath": {"path": str(place), "type": "Directory"}})
        result.folders.append(place)
        result.changes.append(f"{name}: emptyDir {volume['name']!r} is a folder of this machine")
    pod["volumes"] = kept


def _leave_out_ports(name: str, pod: Document, result: Playable) -> None:
    # On the machine's own network they only inform, and podman 4.3 would publish them.
    if pod.get("hostNetwork"):
        for container in pod["containers"]:
            if container.pop("ports", None):
                result.changes.append(f"{name}: containerPorts of {container['name']} left out")


def _leave_out_memory(name: str, pod: Document, result: Playable) -> None:
    for container in pod["containers"]:
        for kind, wanted in container["resources"].items():
            if wanted.pop("memory", None):
                result.changes.append(f"{name}: memory of the {kind} of {container['name']} left out")


def _mounts(pod: Document) -> Iterator[tuple[Document, Document]]:
    for container in pod.get("containers", []):
        for mount in container.get("volumeMounts", []):
            yield container, mount


@dataclass(frozen=True, slots=True)
class Probe:
    """The command of a probe.

    Attributes:
        deployment, container: whose.
        kind: startup, readiness or liveness.
        command: runs in the container; 0 is well. Of an HTTP probe, a command that asks the same.
    """

    deployment: str
    container: str
    kind: str
    command: tuple[str, ...]


def probes(documents: Sequence[Document]) -> list[Probe]:
    """Every probe of every container, startup probes first.

    Raises:
        ValueError: a container has no startup probe, or one of a form that cannot be asked from here.
    """
    found = []
    for kind in ("startup", "readiness", "liveness"):
        for document in documents:
            if document["kind"] != "Deployment":
                continue
            for container in document["spec"]["template"]["spec"]["containers"]:
                probe = container.get(f"{kind}Probe")
                where = f"{document['metadata']['name']}/{container['name']}"
                if probe is None:
                    if kind == "startup":
                        raise ValueError(f"{where} has no startup probe")
                    continue
                if "exec" not in probe:
                    raise ValueError(f"{where}: the {kind} probe is no command (values: probes.type=exec)")
                found.append(Probe(document["metadata"]["name"], container["name"], kind, tuple(probe["exec"]["command"])))
    return found


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is played.

    Attributes:
        deployment, container: whose.
        address: HOST:PORT on this machine.
    """

    deployment: str
    container: str
    address: str


def servers(documents: Sequence[Document], component: str) -> list[Server]:
    """Return the servers of a component of the chart, one per replica. The pods are on the machine's own network.

    Raises:
        ValueError: no port is set for one of them.
    """
    found = []
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        name = str(document["metadata"]["name"])
        for container in document["spec"]["template"]["spec"]["containers"]:
            if container["name"] == component:
                ports = [one["value"] for one in container["env"] if one["name"] == "DUBSTAGE_PORT"]
                if not ports:
                    raise ValueError(f"{name}/{component} has no DUBSTAGE_PORT")
                found.append(Server(name, component, f"127.0.0.1:{ports[-1]}"))
    return found
