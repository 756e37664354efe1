"""A stage of which no replica runs, as one that was scaled to zero: an operation waits for it at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from tests.integration.conftest import OTHER, Media, RunningStages, StartGateway, dubbing
from tests.integration.test_operations import until
from tests.integration.test_serve import free_ports


@contextmanager
def texture_stage(folder: Path, artefacts: Path, port: int) -> Iterator[str]:
    """The texture stage as a process of its own; where it listens."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "DUBSTAGE_PORT": str(port),
        "DUBSTAGE_READY_FILE": str(ready),
        "DUBSTAGE_ARTEFACTS_URL": str(artefacts),
        "DUBSTAGE_DRAIN_GRACE_S": "0",
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "services.texture"], env=environment, stdout=log, stderr=log)
        try:
            until(lambda: ready.exists() or process.poll() is not None, seconds=240)
            assert process.poll() is None, (folder / "log").read_text()
            yield ready.read_text().strip()
        finally:
            process.terminate()
            process.wait()


def test_an_operation_waits_for_a_stage_that_is_started_for_it(
    start_gateway: StartGateway, stages: RunningStages, media: Media, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with texture_stage(tmp_path, stages.artefacts, port) as endpoint:
        running = start_gateway(texture_endpoint=endpoint, stages_start_s=300)
    with running.connect() as connection:
        dub = client.dub(connection, **dubbing("rested.mp4", footage=OTHER))
        with pytest.raises(DubstageCallError):
            dub.wait(timeout_s=2)
        with texture_stage(tmp_path, stages.artefacts, port):
            result = dub.wait(timeout_s=300)
    assert result.num_dubbed > 0


def test_a_stage_that_nobody_starts_ends_the_operation_and_is_named(
    start_gateway: StartGateway, stages: RunningStages, media: Media, tmp_path: Path
) -> None:
    with texture_stage(tmp_path, stages.artefacts, *free_ports(1)) as endpoint:
        running = start_gateway(texture_endpoint=endpoint, stages_start_s=10)
    with running.connect() as connection, pytest.raises(DubstageCallError) as caught:
        client.dub(connection, **dubbing("never.mp4", footage=OTHER)).wait(timeout_s=300)
    assert caught.value.reason == "STAGE_DEADLINE_EXCEEDED"
    assert "texture" in caught.value.message
    assert not list(media.root.glob("*never*"))
