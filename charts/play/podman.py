"""The few commands of podman that are needed."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path


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
