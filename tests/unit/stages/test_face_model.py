"""The face model of the settings is checked when the stages open, by the face stage itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.stages.face_model import check_face_model
from gateway.stages.local import LocalStages, compose_stages
from services.common.errors import InvalidRequest, ModelNotFound
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
async def test_a_model_that_the_stage_has_is_all_right(folder: Path, name: str) -> None:
    await opened(folder, name)


async def test_another_model_is_refused_with_the_names_of_those_that_are_there(folder: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"DUBSTAGE_FACE_MODEL: .*'flame'.*mediapipe_468, artefacts, broken, mine|broken, mine"):
        await opened(folder, "flame")


async def test_a_damaged_model_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="DUBSTAGE_FACE_MODEL: "):
        await opened(folder, "broken")
