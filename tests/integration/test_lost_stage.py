"""A stage that goes away while it is needed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.stages import calls
from tests.integration.client_calls import dubbing, progress, until
from tests.integration.servers import RunningStages


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
            until(lambda: ready.exists() or process.poll() is not None, seconds=240)
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield process, ready.read_text().strip()
        finally:
            process.kill()
            process.wait()


def test_killed_stage_fails_dub(start_gateway, face_process, media, long_footage, monkeypatch) -> None:
    """A stage that is killed fails the dub clearly and leaves no output."""
    # The gateway tries again for about 3 s instead of 18 s, because this test does not start the stage again.
    monkeypatch.setattr(calls, "JOB_POLICY", replace(calls.JOB_POLICY, max_attempts=4))
    process, endpoint = face_process
    running = start_gateway(face_endpoint=endpoint)
    with running.connect() as connection:
        dub = client.dub(connection, **dubbing("lost.mp4", footage=long_footage))
        until(lambda: progress(dub.state()).done >= 2)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(DubstageCallError) as caught:
            dub.wait(timeout_s=300)
    assert caught.value.reason == "BACKEND_UNAVAILABLE"
    assert caught.value.retryable
    assert "face" in caught.value.message
    assert not list(media.root.glob("*lost*"))
