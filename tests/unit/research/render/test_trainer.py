from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from research.methods.ugc.render import read_textured
from research.render.held_out import base_pictures
from research.render.trainer import HeldOutClips, check_rows
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from tests.unit.research.render.tiny_training import add_clip


@pytest.fixture
def data(bank: MouthBank, tmp_path: Path) -> TrainSet:
    for name, speaker in (("a1", "anna"), ("a2", "anna"), ("a3", "anna"), ("b1", "ben"), ("c1", "cleo")):
        add_clip(tmp_path, bank, name, speaker=speaker, split="val")
    return TrainSet(tmp_path)


def test_clips_are_spread_over_the_people(data: TrainSet) -> None:
    assert [row.name for row in check_rows(data, 4)] == ["a1", "b1", "c1", "a2"]
    assert [row.name for row in check_rows(data, 2)] == ["a1", "c1"]
    assert [row.name for row in check_rows(data, 9, without=["anna"])] == ["b1", "c1"]
    with pytest.raises(InvalidRequestError, match="no clip of split 'val'"):
        check_rows(data, 9, without=["anna", "ben", "cleo"])


def test_figures_tell_known_people_from_new_ones(data: TrainSet, tmp_path: Path) -> None:
    clips = HeldOutClips(check_rows(data, 2), data, {"anna"}, read_textured)
    found = clips.check(lambda pairs: base_pictures(pairs) - 40.0, tmp_path / "run" / "sheet.png")
    assert found.score is None
    assert set(found.metrics) == {
        f"{group}_{name}" for group in ("known", "new") for name in ("psnr_db", "sharpness", "base_psnr_db")
    }
    assert found.metrics["new_psnr_db"] < found.metrics["new_base_psnr_db"]
    sheet = cv2.imread(str(tmp_path / "run" / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (3 * 160, 8 * 160, 3)
