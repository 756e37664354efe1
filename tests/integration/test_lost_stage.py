"""A stage that goes away while it is needed, or that rests at zero replicas until an operation wakes it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.stages import calls
from gateway.stages.local import compose_stages
from services.common.server.process import server_of
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings
from tests.integration.client_calls import dubbing, progress, until
from tests.integration.servers import LoopThread, RunningStages
from tests.integration.test_serve import free_ports
from tests.integration.videos import OTHER
from tests.refusals import refused


@pytest.fixture
def face_process(stages: RunningStages, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The face stage as a process of its own, and where it listens."""
    ready = tmp_path / "ready"
    own = {"DUBSTAGE_PORT": "0", "DUBSTAGE_READY_FILE": str(ready), "DUBSTAGE_ARTEFACTS_URL": str(stages.artefacts)}
    environment = {**os.environ, **own}
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


@contextmanager
def texture_stage(loop_thread: LoopThread, artefacts: Path, port: int) -> Iterator[str]:
    """Serve the texture stage, warm, and give the address of the server. Before and after the context, the port refuses calls."""
    settings = StageSettings(port=port, artefacts_url=str(artefacts), drain_grace_s=0.0)

    async def start() -> StageServer:
        server = server_of("texture", settings, compose_stages(settings.artefacts_url)["texture"])
        await server.start()
        await server.warm_up()
        return server

    server = loop_thread.run(start())
    try:
        yield server.address
    finally:
        loop_thread.run(server.drain(grace_s=0))


def test_operation_waits_for_stage(start_gateway, stages, media, loop_thread) -> None:
    (port,) = free_ports(1)
    with texture_stage(loop_thread, stages.artefacts, port) as endpoint:
        running = start_gateway(texture_endpoint=endpoint, stages_start_s=300)
    with running.connect() as connection:
        dub = client.dub(connection, **dubbing("rested.mp4", footage=OTHER))
        with pytest.raises(DubstageCallError, match="has not ended"):
            dub.wait(timeout_s=1)
        with texture_stage(loop_thread, stages.artefacts, port):
            result = dub.wait(timeout_s=300)
    assert result.num_dubbed > 0


def test_unstarted_stage_ends_operation(start_gateway, stages, media, loop_thread) -> None:
    """An operation ends and names the stage if no one starts the stage."""
    with texture_stage(loop_thread, stages.artefacts, *free_ports(1)) as endpoint:
        running = start_gateway(texture_endpoint=endpoint, stages_start_s=4)
    with running.connect() as connection, refused(reason="STAGE_DEADLINE_EXCEEDED") as caught:
        client.dub(connection, **dubbing("never.mp4", footage=OTHER)).wait(timeout_s=300)
    assert "texture" in caught.value.message
    assert not list(media.root.glob("*never*"))
