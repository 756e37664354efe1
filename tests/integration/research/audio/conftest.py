"""Fixtures of the audio stage's tests."""

from __future__ import annotations

from tests.unit.audio.conftest import models, speech

__all__ = ["models", "speech"]
