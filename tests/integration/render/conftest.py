"""Fixtures of the render stage's tests."""

from tests.unit.render.conftest import bank, frames, mask, small_weights

__all__ = ["bank", "frames", "mask", "small_weights"]
