"""The table of methods against the stages' own lists of models."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.client import rpcs
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.stages.method_check import check_methods, models_for
from services.common.errors import ContractBroken, ModelNotFound
from services.common.methods import METHODS, RENDERERS, method_named
from services.common.wire.models import predictor_to_proto, renderer_to_proto


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
    # The predictor of files and the predictor of live streams of `ugc`, and the predictor of `everybody`.
    for index, method in ((0, "ugc"), (1, "ugc"), (2, "everybody")):
        motion = motion_models()
        motion.models[index].ClearField(next(iter(change)))
        motion.models[index].MergeFrom(motion_pb2.Model(**change))
        with pytest.raises(ContractBroken, match=rf"the motion stage .* method '{method}': {field} is .* in the gateway"):
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
    with pytest.raises(
        ContractBroken, match=rf"the render stage .* method '{render.models[0].name}': {field} is .* in the gateway"
    ):
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
    assert len((await models_for(stages, method_named("ugc"))).render.models) == len(METHODS)


@pytest.mark.parametrize("stage", ["motion", "render"])
async def test_missing_method_lists_methods(stage: str) -> None:
    """A method that a stage lacks is refused with what there is."""
    motion, render = motion_models(), render_models()
    models = (motion if stage == "motion" else render).models
    models.remove(next(model for model in models if model.name == "everybody"))
    stages: Any = ListingStages(motion, render)
    with pytest.raises(
        ModelNotFound, match=rf"'everybody' cannot be used here: the {stage} stage has no model .* it has: \w+"
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
        ModelNotFound,
        match=r"the render stage cannot compute its model 'hetero': openvino cannot read hetero\.onnx: choose .* it has: \w+",
    ):
        await models_for(stages, method_named("hetero"))
    assert await models_for(stages, method_named("ugc"))


async def test_missing_file_predictor_still_streams() -> None:
    """A stage without the predictor of files still streams."""
    motion = motion_models()
    motion.models.remove(next(model for model in motion.models if model.name == METHODS["ugc"].motion.name))
    stages: Any = ListingStages(motion, render_models())
    with pytest.raises(ModelNotFound, match="the motion stage has no model 'speech_map'"):
        await models_for(stages, method_named("ugc"))
    assert await models_for(stages, method_named("ugc").streamed)
    with capture_logs():
        assert check_methods(motion, render_models()) == ["ugc"]
