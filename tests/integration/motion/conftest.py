"""Fixtures of the motion stage's tests."""

from tests.unit.motion.conftest import models

__all__ = ["models"]
