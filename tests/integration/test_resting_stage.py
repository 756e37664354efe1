"""A stage of which no replica runs, as one that was scaled to zero: an operation waits for it at its start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.stages.local import compose_stages
from services.common.server.process import server_of
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings
from tests.integration.client_calls import dubbing
from tests.integration.servers import LoopThread
from tests.integration.test_serve import free_ports
from tests.integration.videos import OTHER
from tests.refusals import refused


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
