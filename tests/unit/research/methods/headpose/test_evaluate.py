"""Head motion of held-out clips, as the exported predictor answers it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from research.methods.headpose import evaluate as command
from research.methods.headpose.motion import angle_correlation
from services.common.store.tensor_bytes import decode_arrays
from tests.unit.motion.made_clips import made_clip, write_set


def test_angles_are_compared_over_usable_frames() -> None:
    clip = made_clip(0)
    clip.usable[50:] = False
    poses = clip.poses.copy()
    poses[50:] = 0.0
    poses[:, 1] *= -1.0
    found = angle_correlation(poses, clip, slice(10, None))
    assert found == pytest.approx({"r_pitch": 1.0, "r_yaw": -1.0, "r_roll": 1.0})


def test_poses_written_short_clips_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Poses are written and clips that are too short are named."""
    data = write_set(tmp_path / "set", [made_clip(0, "dev", 130), made_clip(1, "dev", 60)])
    out = tmp_path / "poses.safetensors"
    monkeypatch.setattr(sys, "argv", ["evaluate", "--data", str(data.folder), "--out", str(out)])
    assert command.main() == 0
    assert "clip1: left out" in capsys.readouterr().err
    poses = decode_arrays(out.read_bytes())
    assert poses["clip0/personalised"].shape == (52, 6)
    assert np.isfinite(poses["clip0/personalised"]).all()
