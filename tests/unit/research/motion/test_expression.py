"""The preparation `expression`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from research.motion.basis import EXPRESSION, SHAPE_FILE, ExpressionSpace, committed_basis
from research.training.trainset import TrainSet, part_path
from services.common.store.tensor_bytes import decode_arrays
from tests.unit.motion.made_clips import made_clip, write_set


def prepared(data: TrainSet) -> tuple[dict[str, str], list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    missing = EXPRESSION.prepare(data.folder, Path("unused"), 2, lambda done, of: seen.append((done, of)))
    return dict(missing), seen


def test_expression_belongs_to_the_frames_of_the_picture(tmp_path: Path) -> None:
    clips = [made_clip(0), made_clip(1, "val")]
    data = write_set(tmp_path / "set", clips, {"clip0": 5})
    assert prepared(data) == ({}, [(1, 2), (2, 2)])
    (found,) = data.arrays(data.rows[0], "expression", ("coefficients",)).values()
    space = ExpressionSpace.of(committed_basis())
    np.testing.assert_array_equal(found, space.target(clips[0].mouth_landmarks, clips[0].usable).coefficients)
    shape = decode_arrays((data.folder / SHAPE_FILE).read_bytes())["shape"]
    assert shape.shape == (59 * 3, found.shape[1])
    moved = np.linalg.norm(space.expression.components[0] * space.expression.typical_spread[0])
    np.testing.assert_allclose(np.linalg.norm(shape[:, 0]), moved, rtol=1e-5)


def test_done_is_skipped_impossible_explained(tmp_path: Path) -> None:
    """Finished clips are not fitted again, and clips that cannot be fitted are explained."""
    hidden = made_clip(1)
    hidden.usable[10:] = False
    data = write_set(tmp_path / "set", [made_clip(0), hidden])
    prepared(data)
    path = part_path(data.folder, "00000", "clip0", "expression")
    written = path.stat().st_mtime_ns
    missing, _ = prepared(data)
    assert path.stat().st_mtime_ns == written
    assert missing == {"clip1": "expression needs 25 usable frames, the clip has 10"}
    assert not part_path(data.folder, "00000", "clip1", "expression").exists()
