"""A network that a backend cannot read, behind a real server: the other methods are served, and the network is named."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from dubstage.client import rpcs
from dubstage.render.v1 import render_pb2 as pb
from dubstage.render.v1.render_pb2_grpc import RenderServiceStub
from gateway.cli.doctor import check_renderers
from gateway.settings import GatewaySettings
from gateway.stages.local import LocalStages
from services.common.errors import ModelNotFoundError
from services.common.server.process import server_of
from services.common.store.artefacts import ArtefactStore
from services.render.__main__ import compose
from services.render.settings import RenderSettings
from tests.contract.render.conftest import personalised, rendered
from tests.contract.render.requests import frame_to_proto
from tests.unit.render.unreadable import weights_with_unreadable

RUNTIMES = (("onnxruntime", "int8"), ("onnxruntime", "float32"), ("openvino", "float32"))
REASON = r"on this machine cannot read hetero\.(int8\.)?onnx \(.*NoSuchOperator.*\): choose another runtime with DUBSTAGE_BACKEND"
REFUSED = rf"model 'hetero' cannot be used here: \w+ {REASON}.*there are ugc"


def settings_of(folder: Path, runtime: tuple[str, str], weights: Path) -> RenderSettings:
    backend, precision = runtime
    return RenderSettings(
        port=0,
        artefacts_url=str(folder / "artefacts"),
        render_weights=weights,
        backend=backend,
        precision=precision,
        drain_grace_s=0.0,
        personalize_threads=1,
        personalize_device="cpu",
    )


@pytest.mark.parametrize("runtime", RUNTIMES, ids="-".join)
async def test_unreadable_network_spares_others(tmp_path, runtime, footage, bank) -> None:
    """One network that cannot be read keeps no other from serving."""
    settings = settings_of(tmp_path, runtime, weights_with_unreadable(tmp_path / "weights", "hetero"))
    config = pb.RenderRequest(config=pb.RenderConfig(model="hetero"))
    with capture_logs() as logs:
        async with server_of("render", settings, compose(settings)) as server, grpc.aio.insecure_channel(server.address) as channel:
            stub = RenderServiceStub(channel)
            health_stub: Any = health_pb2_grpc.HealthStub(channel)
            health = await health_stub.Check(health_pb2.HealthCheckRequest())
            listed = await stub.ListModels(pb.ListModelsRequest())
            ugc = pb.RenderRequest(config=pb.RenderConfig(model="ugc"))
            drawn = await rendered(stub, [ugc, *map(frame_to_proto, footage[:2])])
            refused = []
            for call in (
                rendered(stub, [config, frame_to_proto(footage[0])]),
                personalised(stub, ArtefactStore(tmp_path / "artefacts"), bank, "hetero"),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match=REFUSED) as caught:
                    await call
                refused.append(caught.value)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert [model.name for model in listed.models] == ["ugc"]
    assert [model.name for model in listed.unavailable] == ["hetero"]
    assert len(drawn) == 2
    assert {error.code() for error in refused} == {grpc.StatusCode.NOT_FOUND}
    assert str(tmp_path) not in "".join([listed.unavailable[0].reason, *(error.details() or "" for error in refused)])
    (logged,) = [entry for entry in logs if entry["event"] == "model_unavailable"]
    assert (logged["model"], logged["reason"]) == ("hetero", listed.unavailable[0].reason)


@pytest.mark.parametrize("runtime", RUNTIMES, ids="-".join)
async def test_no_readable_network_stops_start(tmp_path: Path, runtime: tuple[str, str]) -> None:
    settings = settings_of(tmp_path, runtime, weights_with_unreadable(tmp_path / "weights", "hetero", "ugc", others=()))
    with pytest.raises(ModelNotFoundError, match=rf"{REASON}.*cannot read ugc\."):
        async with server_of("render", settings, compose(settings)):
            pass


async def test_doctor_names_unreadable_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor names the network of a stage in this process."""
    monkeypatch.setenv("DUBSTAGE_RENDER_WEIGHTS", str(weights_with_unreadable(tmp_path / "weights", "hetero")))
    monkeypatch.setenv("DUBSTAGE_BACKEND", "onnxruntime")
    monkeypatch.setenv("DUBSTAGE_PRECISION", "int8")
    settings = GatewaySettings(data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))
    with pytest.raises(ModelNotFoundError, match=rf"the render stage serves ugc, and cannot compute hetero: onnxruntime {REASON}"):
        await check_renderers(settings)
    monkeypatch.delenv("DUBSTAGE_RENDER_WEIGHTS")
    assert await check_renderers(settings) == "5 load"


async def test_unreadable_network_found_late(tmp_path: Path) -> None:
    """Without a warm-up, the call that needs the network names the reason, and so does the list from then on."""
    settings = settings_of(tmp_path, RUNTIMES[0], weights_with_unreadable(tmp_path / "weights", "hetero"))

    async def config() -> AsyncIterator[pb.RenderRequest]:
        yield pb.RenderRequest(config=pb.RenderConfig(model="hetero"))

    async with LocalStages({"render": compose(settings)}) as stages:
        before = await stages.unary(rpcs.render.LIST_MODELS, pb.ListModelsRequest())
        for _ in range(2):
            with pytest.raises(ModelNotFoundError, match=REFUSED):
                _ = [reply async for reply in stages.stream(rpcs.render.RENDER, config())]
        after = await stages.unary(rpcs.render.LIST_MODELS, pb.ListModelsRequest())
    assert [model.name for model in before.models] == ["hetero", "ugc"]
    assert ([model.name for model in after.models], [model.name for model in after.unavailable]) == (["ugc"], ["hetero"])
