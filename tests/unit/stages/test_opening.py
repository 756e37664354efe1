"""Tests of opening the stages: their models are compared with the table of methods, and the face model is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.settings import GatewaySettings
from gateway.stages import local
from gateway.stages.local import LocalStages, compose_stages
from gateway.stages.opening import check_face_model, open_stages
from services.common.errors import ContractBroken, InvalidRequest, ModelNotFound, StageDeadlineExceeded
from services.common.methods import METHODS
from services.common.server.process import StageParts
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
    with pytest.raises(ModelNotFound, match=r"DUBSTAGE_FACE_MODEL: .*'flame'.*mediapipe_468, artefacts, broken, mine|broken, mine"):
        await opened(folder, "flame")


async def test_a_damaged_model_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="DUBSTAGE_FACE_MODEL: "):
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
    with pytest.raises(ContractBroken, match=f"the motion stage and the gateway differ on method '{name}'.*frames_ahead is 99"):
        async with open_stages(settings):
            pass


async def test_stages_without_models_open(settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "compose_stages", lambda url: composed(motion_pb2.ListModelsResponse()))
    async with open_stages(settings) as stages:
        assert isinstance(stages, local.LocalStages)


async def test_endpoints_of_some_stages_only_are_refused(settings: GatewaySettings) -> None:
    some = settings.model_copy(update={"audio_endpoint": "127.0.0.1:1"})
    with pytest.raises(InvalidRequest, match="DUBSTAGE_FACE_ENDPOINT"):
        async with open_stages(some):
            pass


async def test_a_stage_that_does_not_answer_is_named(settings: GatewaySettings) -> None:
    nowhere = settings.model_copy(update={"stages_host": "127.0.0.1", "audio_endpoint": "127.0.0.1:9"})
    with pytest.raises(StageDeadlineExceeded, match="audio") as caught:
        async with open_stages(nowhere, connect_s=0.3):
            pass
    assert caught.value.exit_code == 20
