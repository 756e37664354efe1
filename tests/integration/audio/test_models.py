"""Speech and no speech in real videos."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from gateway.media.sound import SoundReader
from services.audio.extract import extract_features
from services.audio.models import AudioModels
from services.common.array_types import Float32
from services.common.wire.timeline import Timeline
from tests.conftest import Clips

VOICE = frozenset({"speech_probability"})


def speech_probability(models: AudioModels, samples: Float32, rate_hz: int = 16000) -> Float32:
    return extract_features(samples, rate_hz, Timeline(rate=Fraction(25)), VOICE, models=models)["speech_probability"]


def video_speech_probability(models: AudioModels, video: Path) -> Float32:
    sound = SoundReader(video)
    return speech_probability(models, np.concatenate([chunk.samples for chunk in sound]), sound.info.sample_rate_hz)


def test_a_video_without_speech_is_not_speech(models: AudioModels, clips: Clips) -> None:
    for name in ("video/lp_s18.mp4", "video/lp_d9.mp4"):  # music; room noise
        assert video_speech_probability(models, clips.path(name)).max() < 0.5, name


def test_a_video_of_a_speaker_is_speech(models: AudioModels, clips: Clips) -> None:
    assert np.mean(video_speech_probability(models, clips.path("video/hp_31.mp4")) > 0.5) > 0.85
