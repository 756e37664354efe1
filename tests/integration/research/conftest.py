"""Fixtures of the motion stage's tests, for the trainings of motion."""

from tests.integration.motion.predictors.conftest import data, whole
from tests.unit.motion.conftest import models

__all__ = ["data", "models", "whole"]
