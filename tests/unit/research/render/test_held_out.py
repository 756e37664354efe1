from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from research.methods.everybody.render import read_windows
from research.methods.ugc.render import read_textured
from research.render.held_out import (
    MOUTH_BOX,
    Clip,
    DrawnClip,
    base_faces,
    base_pictures,
    blended,
    clip_metrics,
    clips_named,
    cut_in_two,
    frame_quality,
    mean_quality,
    measure,
    mouth_slices,
    spread_indices,
    still_mouth,
)
from research.render.training import Reenactment
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.render.backends.model_files import INPUT_PICTURES, OUTPUT_RESIDUAL, ModelFile
from services.render.pairs import NEAREST_FRAMES
from services.render.types import Precision
from tests.unit.research.render.tiny_training import add_clip


def test_the_truth_itself_is_perfect(bank: MouthBank) -> None:
    found = frame_quality(bank.boxes[3], bank.boxes[3], bank.box_landmarks[3])
    assert found.ssim == pytest.approx(1.0)
    assert found.sharpness_ratio == pytest.approx(1.0)
    assert found.psnr_db > 90


def test_a_known_error_gives_its_psnr(bank: MouthBank) -> None:
    made = (bank.boxes[3].astype(np.int16) + 5).clip(0, 255).astype(np.uint8)
    assert frame_quality(made, bank.boxes[3], bank.box_landmarks[3]).psnr_db == pytest.approx(34.15, abs=0.1)


def test_blur_lowers_sharpness(bank: MouthBank) -> None:
    blurred = np.asarray(cv2.GaussianBlur(bank.boxes[3], (0, 0), 1.5), np.uint8)
    sharp = frame_quality(bank.boxes[3], bank.boxes[3], bank.box_landmarks[3])
    soft = frame_quality(blurred, bank.boxes[3], bank.box_landmarks[3])
    assert soft.sharpness_ratio < 0.3
    assert mean_quality([sharp, soft]).sharpness_ratio == pytest.approx(soft.sharpness_ratio**0.5)


def test_the_mouth_box_stays_inside_the_render_box() -> None:
    rows, columns = mouth_slices(np.zeros((59, 2)))
    assert (rows.start, columns.start) == (0, 0)
    assert (columns.stop, rows.stop) == MOUTH_BOX


@pytest.fixture
def clip(bank: MouthBank, tmp_path: Path) -> Clip:
    add_clip(tmp_path, bank, "anna-1", speaker="anna", split="val")
    return clips_named(tmp_path, ["anna-1"])[0]


def test_clip_split_with_gap(clip: Clip) -> None:
    """A clip is cut in two with a gap."""
    parts = cut_in_two(clip, 0)
    assert parts.bank.num_frames == 28
    assert parts.rows.tolist() == list(range(28 + NEAREST_FRAMES, 48))
    assert cut_in_two(clip, 3).rows.tolist() == [38, 42, 47]


def test_methods_draw_same_frames(clip: Clip) -> None:
    """Methods draw the same frames from their own inputs."""
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
    with pytest.raises(InvalidRequestError, match="no clip 'ben-1' with a face"):
        clips_named(clip.data.folder, ["anna-1", "ben-1"])


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
    truth = clip_metrics(DrawnClip(held, [pair.target for pair in held.pairs]))
    assert truth.psnr_db > 90
    assert truth.flicker_ratio == 1.0
    assert clip_metrics(still_mouth(held)).psnr_db < truth.psnr_db
    assert "dB" in str(truth)
    assert list(spread_indices(held)) == list(range(10))
