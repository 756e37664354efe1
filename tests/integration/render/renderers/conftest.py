"""Models, and a clip of the drawn person, for the tests of all renderers."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from services.common.face.mouth_bank import MouthBank
from services.render.streams import RenderModels
from services.render.types import RenderedFrame, RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor
from tests.unit.render.rendering import RUNTIMES, committed_models


@pytest.fixture(scope="module", params=RUNTIMES)
def models(request: pytest.FixtureRequest) -> RenderModels:
    """The committed models, with each runtime."""
    return committed_models(request.param)


@pytest.fixture(scope="module")
def clip(bank: MouthBank, mask: npt.NDArray[np.uint8]) -> list[RenderFrame]:
    """Ten frames in a row, without textures."""
    return [RenderFrame(20 + row, bank.boxes[row], None, mask, bank.box_landmarks[row + 5]) for row in range(10)]


@pytest.fixture(scope="module")
def actor(request: pytest.FixtureRequest, models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person as an actor of the renderer, from the function `person` of the test's module."""
    person: Callable[[RenderModels, MouthBank], DrawnActor] = request.module.person
    return person(models, bank)


@pytest.fixture(scope="module")
def whole(actor: DrawnActor, clip: list[RenderFrame]) -> list[RenderedFrame]:
    """The clip in one call."""
    return actor.drawn(clip)
