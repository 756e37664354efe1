from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.face.mouth_bank import MouthBank
from services.render.backends.registry import ModelFile
from services.render.renderers.everybody.train.held_out import read_windows
from services.render.tensor_names import INPUT_PICTURES, OUTPUT_RESIDUAL
from services.render.train.held_out import clips_named
from services.render.train.reenactment import Reenactment
from services.render.train.shown import Shown, base_faces, figures, spread_places, still_mouth
from services.render.types import Precision
from tests.unit.render.train.tiny_training import add_clip


class Brighter:
    """Backend whose every network adds one level."""

    name, precision, num_threads = "test", Precision.FLOAT32, 1

    def load(self, model: ModelFile) -> None:
        """Do nothing."""

    def infer(self, model: str, inputs: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[Any]]:
        return {OUTPUT_RESIDUAL: np.ones((*inputs[INPUT_PICTURES].shape[:3], 3), np.float32)}


def test_faces_are_measured_against_the_footage(bank: MouthBank, tmp_path: Path) -> None:
    add_clip(tmp_path, bank, "anna-1", speaker="anna", split="val")
    clip = clips_named(tmp_path, ["anna-1"])[0]
    held = read_windows(clip, 0)
    task = Reenactment(
        clip=clip,
        frames=0,
        weights=tmp_path,
        backend=Brighter(),
        files={},
        threads=1,
        folder=tmp_path / "out",
    )
    base = base_faces(held)
    drawn = task.draw("any", np.zeros(1, np.float32), held.pairs)
    assert np.array_equal(drawn[0], np.clip(base.faces[0].astype(int) + 1, 0, 255))
    truth = figures(Shown(held, [pair.target for pair in held.pairs]))
    assert truth.psnr_db > 90
    assert truth.flicker_ratio == 1.0
    assert figures(still_mouth(held)).psnr_db < truth.psnr_db
    assert "dB" in str(truth)
    assert list(spread_places(held)) == list(range(10))
