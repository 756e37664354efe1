"""Tests of the stages without a renderer."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.dub.render.windows import render_window
from research.evaluation.session import TextureStages
from services.common.face.actor_geometry import ActorGeometry
from services.common.methods import RendererSpec, TextureInput
from tests.unit.dub.render.test_windows import RecordingStages, config_of, stretch_of


async def test_texture_is_the_picture() -> None:
    """Without a renderer, the warped texture is the picture."""
    mouth, points = np.zeros((59, 3), np.float32), np.zeros((19, 3), np.float32)
    config = config_of(RendererSpec(name="none", texture=TextureInput.WARPED), ActorGeometry(mouth, mouth, points, points[:15]))
    stages: Any = RecordingStages()
    window = await render_window(TextureStages(stages), config, stretch_of(range(3), np.ones(3, np.bool_)))
    assert window.box.shape == (3, 160, 160, 3)
    assert len(stages.warped) == 3
    assert stages.rendered == []
