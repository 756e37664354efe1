"""Fixtures of the audio stage's tests."""

from tests.unit.audio.conftest import models, speech

__all__ = ["models", "speech"]
