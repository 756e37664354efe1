"""A whole dub with the renderer on a real tritonserver, against the same dub with the renderer in its process.

tests/contract/render compares the frames of both.
"""

import threading
from contextlib import suppress
from typing import Any

import psutil
import pytest
import tritonclient.grpc as tritongrpc
from tritonclient.utils import InferenceServerException

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.provenance.binding import media_sha256
from research.bench.triton import TritonProcess
from services.common.errors import BackendUnavailableError
from services.common.server.process import server_of
from services.common.server.server import StageServer
from services.render.__main__ import compose
from services.render.settings import RenderSettings
from services.render.types import Precision
from tests.contract.render.conftest import RESTARTS, gave_up, repository, start_triton, stub_of, triton, triton_home
from tests.integration.client_calls import dubbing
from tests.integration.servers import started
from tests.integration.videos import OTHER

__all__ = ["repository", "start_triton", "triton", "triton_home"]


class KillOnce(threading.Thread):
    """Kills the model's process as soon as the server has computed some frames."""

    def __init__(self, server: TritonProcess, after: int) -> None:
        super().__init__(daemon=True)
        self.server, self.after, self.killed_at = server, after, 0
        self.over = threading.Event()

    def run(self) -> None:
        watcher = tritongrpc.InferenceServerClient(self.server.url)
        while not self.over.wait(0.003):
            try:
                computed = sum(int(row.inference_count) for row in watcher.get_inference_statistics("ugc").model_stats)
            except InferenceServerException:
                computed = 0  # not loaded yet
            if computed >= self.after:
                with suppress(psutil.NoSuchProcess):
                    stub_of(self.server).kill()
                self.killed_at = computed
                break
        watcher.close()


def heals(server: StageServer) -> float:
    return server.metrics.registry.get_sample_value("dubstage_triton_heals_total", {"outcome": "healed"}) or 0.0


@pytest.mark.long
def test_triton_dub_same_bytes(start_gateway, stages, loop_thread, media, triton) -> None:
    """A dub on Triton is the dub of the process even if the model is killed meanwhile."""

    def dubbed(name: str, **endpoints: str) -> str:
        with start_gateway(watermark=False, **endpoints).connect() as connection:
            result = client.dub(connection, **dubbing(name, footage=OTHER, codec="ffv1")).wait(timeout_s=300)
        assert result.num_dubbed > 0.9 * result.num_frames
        return media_sha256(media.root / name)

    def renderer(**chosen: Any) -> StageServer:
        settings = RenderSettings(port=0, artefacts_url=str(stages.artefacts), drain_grace_s=0.0, **chosen)
        return loop_thread.run(started(lambda: server_of("render", settings, compose(settings))))

    def dubbed_on_triton(number: int) -> set[bytes]:
        server = renderer(backend="triton", triton_url=triton.url, triton_shared_memory=True)
        killer = KillOnce(triton, after=10)
        killer.start()
        try:
            videos = {dubbed(f"on_triton_{number}_a.mp4", render_endpoint=f"127.0.0.1:{server.port}")}
            killer.over.set()
            killer.join(60.0)
            assert killer.killed_at
            if not heals(server):
                # The killer came behind the last frame of the dub: the next dub meets what it left.
                videos.add(dubbed(f"on_triton_{number}_b.mp4", render_endpoint=f"127.0.0.1:{server.port}"))
            assert heals(server) >= 1.0
            return videos
        finally:
            killer.over.set()
            loop_thread.run(server.drain(grace_s=0))

    for number in range(RESTARTS):
        try:
            on_triton = dubbed_on_triton(number)
            break
        except (BackendUnavailableError, DubstageCallError) as error:
            if not gave_up(triton, BackendUnavailableError(error.message)):
                raise
            triton.stop(kill=True)
            triton.start()
    else:
        on_triton = dubbed_on_triton(RESTARTS)
    server = renderer(backend="onnxruntime", precision=Precision.INT8)
    try:
        in_process = dubbed("in_process.mp4", render_endpoint=f"127.0.0.1:{server.port}")
    finally:
        loop_thread.run(server.drain(grace_s=0))
    assert on_triton == {in_process}
