"""Checks of the containers: the chart's own probes, and the rights of each container."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from charts.play.log import Log
from charts.play.manifests import probes
from charts.play.podman import Podman
from charts.play.replicas import Document

PATIENCE_S: Final = 300.0


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
