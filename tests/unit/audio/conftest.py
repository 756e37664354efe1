"""Fixtures of the audio stage's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from services.audio.models import AudioModels
from services.common.array_types import Float32

SPEECH = Path(__file__).resolve().parents[3] / "gateway" / "cli" / "demo_speech.flac"


@pytest.fixture(scope="session")
def models() -> AudioModels:
    return AudioModels()


@pytest.fixture(scope="session")
def speech() -> Float32:
    """Three seconds of a synthetic voice, 16 kHz mono."""
    samples, rate_hz = soundfile.read(SPEECH, dtype="float32")
    assert rate_hz == 16_000
    return np.asarray(samples[: 3 * rate_hz], np.float32)
