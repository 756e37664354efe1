"""The chart's own pods on podman: what `podman kube play` can run of its output, the replicas, and checks of the containers."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

Document = dict[str, Any]
PORTS: Final = ("DUBSTAGE_PORT", "DUBSTAGE_METRICS_PORT", "DUBSTAGE_HEALTH_PORT")
"""Variables with the ports that a server of ours opens."""
STEP: Final = 100
"""Offset that is added to the ports of each further replica."""
PLAYED: Final = ("ConfigMap", "Secret", "Deployment")
"""Kinds that podman makes something of. Services, autoscaling, disruption budgets, network policies, claims, accounts and what
belongs to operators need a cluster."""
SHARED_MEMORY: Final = "/dev/shm"
PATIENCE_S: Final = 300.0


class Log:
    """Prints lines with the seconds since the beginning, and writes them to a file. Threads may share it.

    Args:
        file: takes the lines; an older file is replaced.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", encoding="utf-8")
        self._begin = time.monotonic()
        self._turn = threading.Lock()

    def __call__(self, text: str) -> None:
        """Write one line."""
        line = f"{time.monotonic() - self._begin:6.1f} s  {text}"
        with self._turn:
            print(line, flush=True)
            print(line, file=self._file, flush=True)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of a running container, as podman reports them."""

    user: str
    read_only: bool
    capabilities: tuple[str, ...]
    image: str
    running: bool


def belongs(pod: str, deployments: Collection[str]) -> bool:
    """Return whether a pod is of one of the Deployments; versions of podman number the pods of one differently."""
    return any(pod.startswith(f"{deployment}-pod") for deployment in deployments)


class Podman:
    """podman, or a program that takes the same arguments.

    Args:
        program: name or path.
    """

    def __init__(self, program: str = "podman") -> None:
        self._program = program

    def _run(self, *arguments: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([self._program, *arguments], check=False, capture_output=True, text=True, input=text)
        if check and done.returncode != 0:
            raise RuntimeError(f"{self._program} {' '.join(arguments[:3])} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done

    def version(self) -> str:
        """Such as 4.3.1."""
        return self._run("--version").stdout.split()[-1]

    def play(self, manifests: Path) -> list[str]:
        """Make and start the pods of a file; returns what podman complains about without giving up.

        Raises:
            RuntimeError: podman refuses; the message is its own.
        """
        return self._run("kube", "play", str(manifests)).stderr.splitlines()

    def down(self, deployments: Collection[str]) -> None:
        """Stop and remove the pods of Deployments, as far as there are any.

        `podman kube down` would remove nothing where one pod of a file is missing, as after a `kube play` that gave up half-way.

        Raises:
            RuntimeError: a pod stays; the message is podman's own.
        """
        left = self._pods_of(deployments)
        if not left:
            return
        # podman also ends with an error where the pods are gone, but a cgroup of theirs was still busy.
        done = self._run("pod", "rm", "--force", *left, check=False)
        if self._pods_of(deployments):
            raise RuntimeError(f"{self._program} pod rm failed: {done.stderr.strip()[-2000:]}")

    def _pods_of(self, deployments: Collection[str]) -> list[str]:
        pods = self._run("pod", "ps", "--format", "{{.Name}}").stdout.split()
        return [pod for pod in pods if belongs(pod, deployments)]

    def keep_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Store a secret that `secretKeyRef` of manifests can name, in the place of an older one of the name.

        podman 4.3 does not read the documents of kind Secret that it stores itself; all versions read this form.

        Raises:
            RuntimeError: podman refuses.
        """
        self.forget_secret(name)
        coded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self._run("secret", "create", name, "-", text=json.dumps(coded))

    def forget_secret(self, name: str) -> None:
        """Remove a secret, if it is there."""
        self._run("secret", "rm", name, check=False)

    def kill(self, container: str) -> None:
        """End a container at once, as a lost node would. podman does not start it again by itself.

        Raises:
            RuntimeError: podman refuses.
        """
        self._run("kill", "--signal", "KILL", container)

    def start(self, container: str) -> None:
        """Start a container that has ended.

        Raises:
            RuntimeError: podman refuses.
        """
        self._run("start", container)

    def container(self, deployment: str, own: str) -> str:
        """Return the full name of a container of the pod of a Deployment.

        Raises:
            RuntimeError: there is none.
        """
        for (pod, name), full in self.containers().items():
            if name == own and belongs(pod, [deployment]):
                return full
        raise RuntimeError(f"podman has no container {own} of {deployment}")

    def containers(self) -> dict[tuple[str, str], str]:
        """Full names of running and ended containers, by pod and by their own name within it."""
        listed = json.loads(self._run("ps", "--all", "--pod", "--format", "json").stdout)
        named = {}
        for one in listed:
            pod, full = str(one.get("PodName", "")), str(one["Names"][0])
            if pod and full.startswith(f"{pod}-"):
                named[pod, full.removeprefix(f"{pod}-")] = full
        return named

    def succeeds(self, container: str, command: tuple[str, ...]) -> tuple[bool, str]:
        """Return whether a command in a container ends with 0, and the command's output."""
        done = self._run("exec", container, *command, check=False)
        return done.returncode == 0, (done.stdout + done.stderr).strip()

    def output(self, container: str, command: tuple[str, ...]) -> str:
        """Return what a command in a container prints.

        Raises:
            RuntimeError: the command failed.
        """
        return self._run("exec", container, *command).stdout

    def facts(self, container: str) -> Facts:
        """Return the facts of a running container."""
        one = json.loads(self._run("inspect", container).stdout)[0]
        return Facts(
            user=str(one["Config"]["User"]),
            read_only=bool(one["HostConfig"]["ReadonlyRootfs"]),
            capabilities=tuple(one["EffectiveCaps"] or ()),
            image=str(one["ImageName"]),
            running=bool(one["State"]["Running"]),
        )

    def logs(self, container: str) -> str:
        """All that it has printed."""
        done = self._run("logs", container, check=False)
        return done.stdout + done.stderr


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
        release: name of the Helm release.

    Raises:
        subprocess.CalledProcessError: helm refuses; its message is in `stderr`.
        subprocess.TimeoutExpired: helm does not end within two minutes.
    """
    command = [helm, "template", release, str(chart)]
    for file in values:
        command += ["--values", str(file)]
    for pair in settings:
        command += ["--set", pair]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
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
        path = folder / f"{name}-{volume['name']}"
        kept.append({"name": volume["name"], "hostPath": {"path": str(path), "type": "Directory"}})
        result.folders.append(path)
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
    all_probes = []
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
                all_probes.append(Probe(document["metadata"]["name"], container["name"], kind, tuple(probe["exec"]["command"])))
    return all_probes


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
    replicas = []
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        name = str(document["metadata"]["name"])
        for container in document["spec"]["template"]["spec"]["containers"]:
            if container["name"] == component:
                ports = [one["value"] for one in container["env"] if one["name"] == "DUBSTAGE_PORT"]
                if not ports:
                    raise ValueError(f"{name}/{component} has no DUBSTAGE_PORT")
                replicas.append(Server(name, component, f"127.0.0.1:{ports[-1]}"))
    return replicas


def wait_for_probes(podman: Podman, documents: Sequence[Document], log: Log) -> None:
    """Ask what a kubelet would ask, by the same commands in the same containers.

    Raises:
        RuntimeError: a container is not well in the time, or has ended; its log is in the message.
    """
    deadline = time.monotonic() + PATIENCE_S
    for probe in probes(documents):
        full = podman.container(probe.deployment, probe.container)
        begun = time.monotonic()
        while True:
            well, said = podman.succeeds(full, probe.command)
            if well:
                break
            # Only the start may take its time.
            if probe.kind != "startup" or time.monotonic() > deadline or not podman.facts(full).running:
                raise RuntimeError(f"{full}: {probe.kind} probe: {said}\n{podman.logs(full)[-3000:]}")
            time.sleep(0.5)
        log(f"{probe.kind:9} {full}: {said or 'ok'} ({time.monotonic() - begun:.1f} s)")


def show_security(podman: Podman, log: Log) -> None:
    """Log what the containers may do.

    Raises:
        RuntimeError: one may do more than the chart says.
    """
    for (_, own), full in podman.containers().items():
        if own == "infra":
            continue
        facts = podman.facts(full)
        _, identity = podman.succeeds(full, ("/bin/sh", "-c", "id -u; touch /opt/x 2>&1 | sed 's/.*: //'"))
        uid, _, refused = identity.partition("\n")
        log(
            f"{full}: {facts.image}, uid {uid}, writing to /opt: {refused}; capabilities: {', '.join(facts.capabilities) or 'none'}"
        )
        if uid != "65532" or not facts.read_only or facts.capabilities:
            raise RuntimeError(f"{full} may do more than the chart says: {facts}")
