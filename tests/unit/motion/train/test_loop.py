"""Curves of a training."""

from __future__ import annotations

from pathlib import Path

from services.motion.train.loop import Curves


def test_curves_are_drawn(tmp_path: Path) -> None:
    curves = Curves()
    curves.add(1, loss=2.0)
    curves.add(2, loss=1.0)
    curves.draw(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
