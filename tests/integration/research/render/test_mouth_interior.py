"""The run that makes the mean mouth, and its export."""

from pathlib import Path

import numpy as np
import pytest

from research.methods.headpose.mouth_interior import NETWORK, MouthInteriorRecipe
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.render.renderers.headpose.renderer import mean_mouth
from tests.unit.motion.brief_training import train_briefly
from tests.unit.research.render.tiny_training import small_set


def test_run_without_steps_is_mean(bank: MouthBank, tmp_path: Path) -> None:
    """A run without steps makes the mean of the set and the stage shows it."""
    folder = tmp_path / "run"
    train_briefly(NETWORK, small_set(tmp_path / "set", bank), MouthInteriorRecipe(), folder)
    (tmp_path / "render").mkdir()
    (path,) = NETWORK.export(folder, tmp_path / "render")
    assert path.read_bytes() == (folder / "mouth_interior.safetensors").read_bytes()
    assert not np.array_equal(mean_mouth(tmp_path / "render").picture, mean_mouth().picture)
    assert np.array_equal(mean_mouth(tmp_path / "set").picture, mean_mouth().picture)
    with pytest.raises(InvalidRequestError, match="--resume"):
        NETWORK.export(tmp_path, tmp_path / "render")
