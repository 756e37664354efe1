from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.common.errors import InvalidRequest
from services.common.face.mouth_bank import MouthBank
from services.render.pairs import NEAREST_FRAMES
from services.render.renderers.everybody.train.held_out import read_windows
from services.render.renderers.ugc.train.held_out import read_textured
from services.render.train.held_out import Clip, base_pictures, blended, clips_named, cut_in_two, measure
from tests.unit.render.train.tiny_training import add_clip


@pytest.fixture
def clip(bank: MouthBank, tmp_path: Path) -> Clip:
    add_clip(tmp_path, bank, "anna-1", speaker="anna", split="val")
    return clips_named(tmp_path, ["anna-1"])[0]


def test_a_clip_is_cut_in_two_with_a_gap(clip: Clip) -> None:
    parts = cut_in_two(clip, 0)
    assert parts.bank.num_frames == 28
    assert parts.rows.tolist() == list(range(28 + NEAREST_FRAMES, 48))
    assert cut_in_two(clip, 3).rows.tolist() == [38, 42, 47]


def test_rooms_draw_the_same_frames_from_their_own_inputs(clip: Clip) -> None:
    one, other = read_textured(clip, 3), read_windows(clip, 3)
    for textured, window in zip(one.pairs, other.pairs, strict=True):
        assert np.array_equal(textured.target, window.target)
    assert len(one.first(2).pairs) == len(one.first(2).landmarks) == 2
    assert len(one.first(0).pairs) == 3


def test_the_truth_itself_measures_best(clip: Clip) -> None:
    windows = read_windows(clip, 3)
    truth = measure(windows, lambda pairs: np.stack([pair.target for pair in pairs]).astype(np.float32))
    assert truth.psnr_db > measure(windows, lambda pairs: base_pictures(pairs) - 5.0).psnr_db
    assert np.array_equal(blended(windows.pairs[0], windows.pairs[0].target.astype(np.float32)), windows.pairs[0].target)


def test_a_clip_that_is_not_there_is_refused(clip: Clip) -> None:
    with pytest.raises(InvalidRequest, match="no clip 'ben-1' with a face"):
        clips_named(clip.data.folder, ["anna-1", "ben-1"])
