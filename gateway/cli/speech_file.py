"""A sound file with speech, read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from gateway.media.inspection import inspect_sound
from gateway.media.sound import SoundReader
from services.common.array_types import Float32
from services.common.errors import InvalidRequest

LONGEST_SPEECH_SECONDS: Final = 600
MOST_CHANNELS: Final = 8
"""Most channels that the contract of the audio stage allows."""


def read_speech(path: Path) -> tuple[Float32, int]:
    """Return the samples of a sound file, float32 [n, channels], and the samples per second and channel.

    Channels after the eighth are left out.

    Raises:
        InvalidRequest: the file cannot be read, has no sound, or is longer than ten minutes.
    """
    inspect_sound(path)
    speech = SoundReader(path).speech()
    parts: list[Float32] = []
    count = 0
    for chunk in speech.chunks:
        parts.append(chunk)
        count += len(chunk)
        if count > LONGEST_SPEECH_SECONDS * speech.sample_rate_hz:
            raise InvalidRequest(
                f"{path}: the speech is longer than {LONGEST_SPEECH_SECONDS // 60} minutes; cut it into parts", field="audio"
            )
    if not count:
        raise InvalidRequest(f"{path}: the file has no sound", field="audio")
    samples = np.concatenate(parts)
    return np.ascontiguousarray(samples[:, :MOST_CHANNELS]), speech.sample_rate_hz
