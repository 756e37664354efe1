"""A stage that goes away while it is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from tests.integration.conftest import OTHER, Media, RunningStages, StartGateway, dubbing
from tests.integration.test_operations import progress, until


@pytest.fixture
def face_process(stages: RunningStages, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The face stage as a process of its own, and where it listens."""
    ready = tmp_path / "ready"
    environment = {
        **os.environ,
        "DUBSTAGE_PORT": "0",
        "DUBSTAGE_READY_FILE": str(ready),
        "DUBSTAGE_ARTEFACTS_URL": str(stages.artefacts),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "services.face"], env=environment, stdout=log, stderr=log)
        try:
            until(ready.exists, seconds=90)
            yield process, ready.read_text().strip()
        finally:
            process.kill()
            process.wait()


def test_a_stage_that_is_killed_fails_the_dub_clearly_and_leaves_no_output(
    start_gateway: StartGateway, face_process: tuple[subprocess.Popen[bytes], str], media: Media
) -> None:
    process, endpoint = face_process
    running = start_gateway(face_endpoint=endpoint)
    with running.connect() as connection:
        dub = client.dub(connection, **dubbing("lost.mp4", footage=OTHER))
        until(lambda: progress(dub.state()).frames_done >= 2)
        os.kill(process.pid, signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(DubstageCallError) as caught:
            dub.wait(timeout_s=60)
    assert time.monotonic() - begin < 30
    assert caught.value.reason == "BACKEND_UNAVAILABLE"
    assert caught.value.retryable
    assert "face" in caught.value.message
    assert not list(media.root.glob("*lost*"))
