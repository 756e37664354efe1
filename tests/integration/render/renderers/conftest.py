"""Models, a film of the drawn person and a small training set, for the tests of all renderers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.models import RenderModels
from services.render.types import RenderedFrame, RenderFrame
from services.training.trainset.reader import TrainSet
from tests.integration.render.renderers.drawn_actor import DrawnActor
from tests.unit.render.rendering import RUNTIMES, committed_models
from tests.unit.render.train.tiny_training import perceptual_run, small_set


@pytest.fixture(scope="module", params=RUNTIMES)
def models(request: pytest.FixtureRequest) -> RenderModels:
    """The committed models, with each runtime."""
    return committed_models(request.param)


@pytest.fixture(scope="module")
def film(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Ten frames in a row, without textures."""
    return [RenderFrame(20 + row, bank.boxes[row], None, mask, bank.box_landmarks[row + 5]) for row in range(10)]


@pytest.fixture(scope="module")
def actor(request: pytest.FixtureRequest, models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person as an actor of the renderer, from the function `person` of the test's module."""
    person: Callable[[RenderModels, MouthBank], DrawnActor] = request.module.person
    return person(models, bank)


@pytest.fixture(scope="module")
def whole(actor: DrawnActor, film: list[RenderFrame]) -> list[RenderedFrame]:
    """The film in one call."""
    return actor.drawn(film)


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    """The small training set."""
    return small_set(tmp_path_factory.mktemp("set"), bank)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of other networks that a training needs."""
    return {"perceptual": perceptual_run(tmp_path_factory.mktemp("perceptual"))}
