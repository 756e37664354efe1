"""`dubstage train` on a tiny set of a drawn person."""

from __future__ import annotations

from pathlib import Path

from gateway.cli.app import run
from tests.unit.texture.conftest import DrawnPerson
from tests.unit.texture.train_sets import drawn_set


def tiny_set(folder: Path) -> Path:
    """Write a set with one clip to learn from and one clip to validate with; return its folder."""
    clips = {"a": ("ann", "train", 60), "b": ("bob", "val", 50)}
    return drawn_set(folder, DrawnPerson(), clips, licence="CC0-1.0").folder


def train(data: Path, output: Path, *more: str, network: str = "temporal_warp") -> int:
    """Run `dubstage train`; return the exit code."""
    return run(["train", network, "--data", str(data), "--output", str(output), *more])
