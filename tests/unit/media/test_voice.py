from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gateway.media.probe import probe
from gateway.media.sound import SoundReader, Speech
from gateway.media.voice import only_voice, voice_of
from tests.unit.media.made_footage import Clip, copied, make_clip, tone

RATE = 16000
VOICE = tone(RATE, RATE)[:, 0]
NOISE = np.random.default_rng(0).normal(0.0, 0.3, (2, RATE)).astype(np.float32)


def _sound(*channels: npt.NDArray[np.float32] | float) -> Speech:
    """A second of sound: each channel is a wave, or the voice by a factor."""
    waves = [channel if isinstance(channel, np.ndarray) else channel * VOICE for channel in channels]
    samples = np.stack(waves, axis=1).astype(np.float32)
    return Speech(RATE, len(channels), [samples[:5000], samples[5000:]])


@pytest.mark.parametrize(
    ("sound", "channels"),
    [
        (_sound(1.0), (0,)),
        (_sound(1.0, 1.0), (0, 1)),
        (_sound(1.0, 0.0), (0, 1)),
        (_sound(0.0, 0.0), (0, 1)),
        (_sound(*NOISE), (0, 1)),
        (_sound(1.0, -1.0), (0,)),
        (_sound(0.5, -0.6), (1,)),
        (_sound(0.0, 0.0, 1.0), (2,)),
        (_sound(0.0, 0.0, 1.0, 0.0), (2,)),
        (_sound(0.4, 0.4, 0.0, 0.0), (0, 1)),
        (_sound(1.0, -1.0, 0.0, 0.0), (0,)),
        (_sound(*NOISE, 1.0, 1.0), (0, 1, 2, 3)),
        (_sound(0.0, 0.0, 0.0, 0.0, 1.0), (4,)),
        (_sound(1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (0, 1, 2, 3, 4, 5)),
        (_sound(0.0, 0.0, 1.0, 0.0, 0.0, 0.0), (2,)),
        (_sound(0.2, -0.2, 0.5, 0.9, 0.0, 0.0), (2,)),
        (_sound(1.0, -1.0, 0.0, 2.0, 0.0, 0.0), (0,)),
    ],
)
def test_channels_of_the_voice(sound: Speech, channels: tuple[int, ...]) -> None:
    voice = voice_of(sound)
    assert voice.channels == channels
    assert (voice.words == "") == (len(channels) == sound.channels)


def test_quiet_speaker_is_heard() -> None:
    """A person with a microphone of their own who says one word in four channels is part of the voice."""
    once = np.where(np.arange(RATE) // 1000 == 7, VOICE, 0.0).astype(np.float32)
    assert voice_of(_sound(1.0, once, 0.0, 0.0)).channels == (0, 1)


def test_choice_is_said() -> None:
    assert "channel 3 is taken as the voice, and the video gets this voice on both" in voice_of(_sound(0.0, 0.0, 1.0)).words
    assert "channel 1 is taken as the voice, and the video keeps all channels" in voice_of(_sound(1.0, -1.0)).words
    assert "the mean of the channels 1 and 2 is taken" in voice_of(_sound(0.4, 0.4, 0.0, 0.0)).words


def test_voice_has_full_level() -> None:
    heard = np.concatenate(list(only_voice(_sound(1.0, -1.0)).chunks))
    np.testing.assert_allclose(heard[:, 0], VOICE)
    plain = _sound(1.0, 1.0)
    assert only_voice(plain) is plain


@pytest.mark.parametrize("channels", [(0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.0, 1.0)])
def test_video_gets_voice_at_full_level(tmp_path: Path, channels: tuple[float, ...]) -> None:
    """The video gets the speech as loud as it is from a recorder with several inputs, of which one has the speech."""
    info = probe(make_clip(tmp_path / "clip.mp4", Clip()))
    copied(info, tmp_path / "out.mp4", speech=_sound(*channels), codec="ffv1")
    written = np.concatenate([c.samples for c in SoundReader(tmp_path / "out.mp4", origin=Fraction(0))])
    assert written.shape[1] == 2
    for side in range(2):
        np.testing.assert_allclose(written[:7000, side], VOICE[:7000], atol=1e-3)
