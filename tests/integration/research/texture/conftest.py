"""Fixtures of the tests of the temporal warp's training."""

from __future__ import annotations

from tests.unit.texture.conftest import person

__all__ = ["person"]
