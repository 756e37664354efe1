"""Fixtures of the tests of the renderers' training."""

from __future__ import annotations

from tests.unit.render.conftest import bank, frames, mask, small_weights

__all__ = ["bank", "frames", "mask", "small_weights"]
