"""Fixtures of the texture stage's tests."""

from __future__ import annotations

from tests.unit.texture.conftest import person

__all__ = ["person"]
