"""The sound of a clip that is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import soxr

from gateway.media.inspection import inspect_film
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from services.common.array_types import Float32
from services.common.errors import InvalidRequest

SPEECH_RATE_HZ: Final = 16000
LAG_FRAME_SAMPLES: Final = SPEECH_RATE_HZ // 25
SILENCE_S: Final = 1.2
"""Seconds of silence before and after framed speech: longer than the mouth needs to come to rest."""


def check_clip(path: Path) -> MediaInfo:
    """Return the description of a clip, which has to be a film with sound.

    Raises:
        InvalidRequest: the clip has no sound.
        MediaUnsupported: the clip cannot be read as a film.
    """
    info = inspect_film(path)
    if not info.audio:
        raise InvalidRequest(f"{path} has no sound, and self-re-enactment needs the sound of the clip", field="clip")
    return info


def own_speech(info: MediaInfo) -> Float32:
    """Return the sound of a clip, float32 [N], 16 kHz mono, as long as the film."""
    reader = SoundReader(info.path, origin=info.video.start)
    samples = np.concatenate([chunk.samples for chunk in reader]).mean(axis=1)
    mono = soxr.resample(samples, reader.info.sample_rate_hz, SPEECH_RATE_HZ)
    length = int(info.video.duration * SPEECH_RATE_HZ)
    fitted = np.zeros(length, np.float32)
    fitted[: min(length, len(mono))] = mono[:length]
    return fitted


def shifted(samples: Float32, lag_frames: int) -> Float32:
    """Return speech of the same length, moved earlier by a lag (frames of 40 ms), so that sound and picture of the clip agree."""
    moved = np.zeros_like(samples)
    offset = lag_frames * LAG_FRAME_SAMPLES
    if offset >= 0:
        moved[: len(samples) - offset] = samples[offset:]
    else:
        moved[-offset:] = samples[:offset]
    return moved


def framed_speech(samples: Float32) -> Float32:
    """Return speech with SILENCE_S of digital silence before and after it."""
    return np.pad(samples, round(SILENCE_S * SPEECH_RATE_HZ))
