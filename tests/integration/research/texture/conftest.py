"""Fixtures of the tests of the temporal warp's training."""

from tests.unit.texture.conftest import person

__all__ = ["person"]
