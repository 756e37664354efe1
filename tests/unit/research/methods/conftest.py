"""Fixtures of the motion stage's tests, for the trainings of motion."""

from __future__ import annotations

from tests.unit.motion.conftest import clips, models, style

__all__ = ["clips", "models", "style"]
