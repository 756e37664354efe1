"""Fixtures of the motion stage's tests."""

from __future__ import annotations

from tests.unit.motion.conftest import models

__all__ = ["models"]
