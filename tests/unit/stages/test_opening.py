"""Tests of opening the stages: their models are compared with the table of methods, and the face model is checked.

The table of methods against the stages' own lists of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from gateway.settings import GatewaySettings
from gateway.stages import local
from gateway.stages.local import LocalStages, compose_stages
from gateway.stages.opening import check_face_model, check_methods, models_for, open_stages
from services.common.errors import ContractBrokenError, InvalidRequestError, ModelNotFoundError, StageDeadlineExceededError
from services.common.methods import METHODS, RENDERERS, method_named
from services.common.server.process import StageParts
from services.common.wire.convert import predictor_to_proto, renderer_to_proto
from tests.unit.common.geometry.small_models import small_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    small_model().save(tmp_path / "mine.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no model")
    monkeypatch.setenv("DUBSTAGE_MORPHABLE_MODELS", str(tmp_path))
    return tmp_path


async def opened(folder: Path, name: str) -> None:
    async with LocalStages(compose_stages(str(folder / "artefacts"), names=("face",)), face_model=name) as stages:
        await check_face_model(stages)


@pytest.mark.parametrize("name", ["", "mediapipe_468", "mine"])
async def test_present_model_passes(folder: Path, name: str) -> None:
    """A model that the stage has is all right."""
    await opened(folder, name)


async def test_unknown_model_lists_models(folder: Path) -> None:
    """Another model is refused with the names of those that are there."""
    with pytest.raises(
        ModelNotFoundError, match=r"DUBSTAGE_FACE_MODEL: .*'flame'.*mediapipe_468, artefacts, broken, mine|broken, mine"
    ):
        await opened(folder, "flame")


async def test_a_damaged_model_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_FACE_MODEL: "):
        await opened(folder, "broken")


class Lists:
    """A servicer that lists models."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    async def ListModels(self, request: Any, context: Any) -> Any:
        return self._reply


def composed(motion: motion_pb2.ListModelsResponse) -> dict[str, StageParts]:
    def parts(reply: Any) -> StageParts:
        return StageParts(servicer=Lists(reply), register=lambda server: None, services=(), warm_up=lambda: None, workers=())

    return {"motion": parts(motion), "render": parts(render_pb2.ListModelsResponse())}


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(data_dir=tmp_path, artefacts_url=str(tmp_path / "artefacts"))


async def test_differing_stage_refused(settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that differs from the table is refused."""
    name = next(iter(METHODS))
    answer = motion_pb2.ListModelsResponse(models=[motion_pb2.Model(name=METHODS[name].motion.name, frames_ahead=99)])
    monkeypatch.setattr(local, "compose_stages", lambda url: composed(answer))
    with pytest.raises(
        ContractBrokenError, match=f"the motion stage and the gateway differ on method '{name}'.*frames_ahead is 99"
    ):
        async with open_stages(settings):
            pass


async def test_stages_without_models_open(settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "compose_stages", lambda url: composed(motion_pb2.ListModelsResponse()))
    async with open_stages(settings) as stages:
        assert isinstance(stages, local.LocalStages)


async def test_endpoints_of_some_stages_only_are_refused(settings: GatewaySettings) -> None:
    some = settings.model_copy(update={"audio_endpoint": "127.0.0.1:1"})
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_FACE_ENDPOINT"):
        async with open_stages(some):
            pass


async def test_a_stage_that_does_not_answer_is_named(settings: GatewaySettings) -> None:
    nowhere = settings.model_copy(update={"stages_host": "127.0.0.1", "audio_endpoint": "127.0.0.1:9"})
    with pytest.raises(StageDeadlineExceededError, match="audio") as caught:
        async with open_stages(nowhere, connect_s=0.3):
            pass
    assert caught.value.exit_code == 20


def motion_models() -> motion_pb2.ListModelsResponse:
    rows = [row for method in METHODS.values() for row in dict.fromkeys((method.motion, method.streamed.motion))]
    return motion_pb2.ListModelsResponse(models=[predictor_to_proto(row, version="1") for row in rows])


def render_models() -> render_pb2.ListModelsResponse:
    models = [renderer_to_proto(row) for row in RENDERERS.values()]
    for model in models:
        model.box_multiple, model.sha256, model.backend = 1, "0", "onnxruntime"
    return render_pb2.ListModelsResponse(models=models)


class ListingStages:
    """Stages that list models and can do nothing else."""

    def __init__(self, motion: motion_pb2.ListModelsResponse, render: render_pb2.ListModelsResponse) -> None:
        self._answers = {rpcs.motion.LIST_MODELS: motion, rpcs.render.LIST_MODELS: render}

    async def unary(self, rpc: Any, request: Any) -> Any:
        return self._answers[rpc]


def test_matching_stages_pass() -> None:
    """Stages that say what the table says are all right."""
    with capture_logs() as logs:
        assert check_methods(motion_models(), render_models()) == []
    assert logs == []


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("features", {"features": [audio_pb2.FEATURE_KIND_MFCC]}),
        ("frames_ahead", {"frames_ahead": 9}),
        ("moves_head", {"moves_head": True}),
    ],
)
def test_differing_predictor_is_named(field: str, change: dict[str, Any]) -> None:
    """A predictor that differs is named with both values."""
    # The predictor of files and the predictor of live streams of `dubstage`, and the predictor of `ugc`.
    for index, method in ((0, "dubstage"), (1, "dubstage"), (3, "ugc")):
        motion = motion_models()
        motion.models[index].ClearField(next(iter(change)))
        motion.models[index].MergeFrom(motion_pb2.Model(**change))
        with pytest.raises(ContractBrokenError, match=rf"the motion stage .* method '{method}': {field} is .* in the gateway"):
            check_methods(motion, render_models())


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("frames_before", {"frames_before": 9}),
        ("frames_after", {"frames_after": 1}),
        ("inputs", {"inputs": ["texture", "speech_features"]}),
        ("texture", {"texture": render_pb2.TEXTURE_INPUT_NONE}),
        ("needs_actor", {"needs_actor": True}),
        ("needs_identity", {"needs_identity": True}),
        ("box_multiple", {"box_multiple": 2}),
    ],
)
def test_differing_renderer_is_named(field: str, change: dict[str, Any]) -> None:
    """A renderer that differs is named with both values."""
    render = render_models()
    render.models[0].ClearField(field)
    render.models[0].MergeFrom(render_pb2.Model(**change))
    first = next(name for name, method in METHODS.items() if method.renderer.name == render.models[0].name)
    with pytest.raises(ContractBrokenError, match=rf"the render stage .* method '{first}': {field} is .* in the gateway"):
        check_methods(motion_models(), render)


def test_extra_models_are_allowed() -> None:
    """A stage may have more models than the table."""
    motion, render = motion_models(), render_models()
    motion.models.add(name="experiment")
    render.models.add(name="experiment")
    assert check_methods(motion, render) == []


def test_gateway_starts_without_method() -> None:
    """A gateway starts without a method and says so."""
    render = render_models()
    gone = render.models.pop()
    with capture_logs() as logs:
        assert check_methods(motion_models(), render) == [gone.name]
    assert [(entry["event"], entry["method"], entry["stages"]) for entry in logs] == [("method_missing", gone.name, ["render"])]


async def test_present_method_gets_models() -> None:
    """A method that the stages have gets its models."""
    stages: Any = ListingStages(motion_models(), render_models())
    assert len((await models_for(stages, method_named("dubstage"))).render.models) == len(RENDERERS)


@pytest.mark.parametrize("stage", ["motion", "render"])
async def test_missing_method_lists_methods(stage: str) -> None:
    """A method that a stage lacks is refused with what there is."""
    motion, render = motion_models(), render_models()
    models = (motion if stage == "motion" else render).models
    models.remove(next(model for model in models if model.name == "everybody"))
    stages: Any = ListingStages(motion, render)
    with pytest.raises(
        ModelNotFoundError, match=rf"'everybody' cannot be used here: the {stage} stage has no model .* it has: \w+"
    ) as caught:
        await models_for(stages, method_named("everybody"))
    assert caught.value.resource == "everybody"
    assert await models_for(stages, method_named("everyone+everybody" if stage == "motion" else "everybody+everyone"))


async def test_uncomputable_renderer_tells_reason() -> None:
    """A method whose renderer cannot be computed is refused with the reason."""
    motion, render = motion_models(), render_models()
    render.models.remove(next(model for model in render.models if model.name == "hetero"))
    render.unavailable.add(name="hetero", reason="openvino cannot read hetero.onnx: choose another runtime")
    with capture_logs() as logs:
        assert check_methods(motion, render) == ["hetero"]
    assert [entry["reason"] for entry in logs] == ["openvino cannot read hetero.onnx: choose another runtime"]
    stages: Any = ListingStages(motion, render)
    with pytest.raises(
        ModelNotFoundError,
        match=r"the render stage cannot compute its model 'hetero': openvino cannot read hetero\.onnx: choose .* it has: \w+",
    ):
        await models_for(stages, method_named("hetero"))
    assert await models_for(stages, method_named("dubstage"))


async def test_missing_file_predictor_still_streams() -> None:
    """A stage without the predictor of files still streams."""
    motion = motion_models()
    motion.models.remove(next(model for model in motion.models if model.name == METHODS["dubstage"].motion.name))
    stages: Any = ListingStages(motion, render_models())
    with pytest.raises(ModelNotFoundError, match="the motion stage has no model 'dubstage'"):
        await models_for(stages, method_named("dubstage"))
    assert await models_for(stages, method_named("dubstage").streamed)
    with capture_logs():
        assert check_methods(motion, render_models()) == ["dubstage"]
