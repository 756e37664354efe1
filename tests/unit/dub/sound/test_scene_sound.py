"""Tests of the sound of a scene."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gateway.dub.sound.scene_sound import SceneSound, SpokenLine
from gateway.media.mix import SoundMix
from gateway.media.probe import probe
from gateway.media.sound import SoundReader, Speech
from gateway.media.types import AudioInfo, MediaInfo
from services.common.array_types import Float32
from tests.system.dubbing import write_wav

RATE = 8000


@pytest.fixture
def footage(carphone: Path, tmp_path: Path) -> MediaInfo:
    """Two seconds with noise as sound."""
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 2 * RATE)
    sound = write_wav(tmp_path / "own.wav", noise, RATE)
    info = probe(carphone)
    pts = np.arange(50, dtype=np.int64)
    video = replace(info.video, pts=pts, time_base=Fraction(1, 25), last_duration=1)
    return replace(info, path=sound, video=video, audio=(AudioInfo(0, "pcm_s16le", RATE, 1, "mono", Fraction(0), {}),))


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> Speech:
    wave = np.sin(2 * np.pi * 200 * np.arange(round(seconds * rate)) / rate).astype(np.float32)
    return Speech(rate, channels, [np.repeat(wave[:, None], channels, axis=1)])


def heard(sound: SceneSound) -> Float32:
    return np.concatenate(list(sound))


def test_own_sound_stays_outside_lines(footage: MediaInfo) -> None:
    """Outside of the lines every sample is the footage's own, and inside only the line is heard."""
    sound = heard(SceneSound.of(footage, [SpokenLine(Fraction(1, 2), tone(0.5)), SpokenLine(Fraction(3, 2), tone(0.25))]))
    own = np.concatenate([chunk.samples for chunk in SoundReader(footage.path)])
    assert sound.shape == own.shape == (2 * RATE, 1)
    lines = np.zeros(2 * RATE, bool)
    lines[RATE // 2 : RATE] = lines[3 * RATE // 2 : 7 * RATE // 4] = True
    np.testing.assert_array_equal(sound[~lines], own[~lines])
    inner = slice(RATE // 2 + 100, RATE - 100)
    expected = np.concatenate(list(tone(0.5).chunks))[100 : len(sound[inner]) + 100]
    np.testing.assert_allclose(sound[inner], expected, atol=1e-6)


def test_overlapping_lines_are_added(footage: MediaInfo) -> None:
    one, two = SpokenLine(Fraction(0), tone(1.0)), SpokenLine(Fraction(0), tone(1.0))
    both = heard(SceneSound.of(footage, [one, two]))[100 : RATE - 100]
    np.testing.assert_allclose(both, 2 * heard(SceneSound.of(footage, [one]))[100 : RATE - 100], atol=1e-6)


def test_lines_take_rate_and_channels(footage: MediaInfo) -> None:
    """A line of another rate and of two channels sounds as long and as loud in the footage's mono."""
    sound = heard(SceneSound.of(footage, [SpokenLine(Fraction(0), tone(1.0, rate=48_000, channels=2))]))
    same = heard(SceneSound.of(footage, [SpokenLine(Fraction(0), tone(1.0))]))
    np.testing.assert_allclose(sound[200 : RATE - 200], same[200 : RATE - 200], atol=0.01)


def test_footage_without_sound_gets_silence(footage: MediaInfo) -> None:
    sound = SceneSound.of(replace(footage, audio=()), [SpokenLine(Fraction(1), tone(0.5))])
    assert (sound.sample_rate_hz, sound.channels) == (RATE, 1)
    assert not heard(sound)[:RATE].any()
    assert len(heard(sound)) == 2 * RATE


def test_lines_are_cut_at_the_end(footage: MediaInfo) -> None:
    assert len(heard(SceneSound.of(footage, [SpokenLine(Fraction(3, 2), tone(9.0))]))) == 2 * RATE


@pytest.mark.parametrize("own_sound", [True, False])
def test_mix_lies_under_lines_alone(footage: MediaInfo, tmp_path: Path, own_sound: bool) -> None:
    """Outside of the lines, every sample is the footage's own. In a line, the stem is ducked while the line speaks."""
    info = footage if own_sound else replace(footage, audio=())
    stem = np.random.default_rng(1).uniform(-0.1, 0.1, 2 * RATE)
    mix = SoundMix(file=write_wav(tmp_path / "stem.wav", stem, RATE), level_db=-6.0, duck_db=12.0)
    voice = tone(0.5)
    wave = np.concatenate([0.4 * np.concatenate(list(voice.chunks)), np.zeros((RATE // 2, 1), np.float32)])
    scene = SceneSound.of(info, [SpokenLine(Fraction(1, 2), Speech(RATE, 1, [wave]))])
    found = scene.with_mix(mix)
    sound, plain = np.concatenate(list(found.sound.chunks)), heard(scene)
    assert found.scale_db == 0.0
    outside = np.r_[0 : RATE // 2, 3 * RATE // 2 : 2 * RATE]
    np.testing.assert_array_equal(sound[outside], plain[outside])
    assert sound[: RATE // 2].any() == own_sound
    under = (sound - plain)[:, 0] / (10 ** (-6 / 20) * stem)
    speaks, pause = slice(3 * RATE // 4, RATE - 200), slice(3 * RATE // 2 - 600, 3 * RATE // 2 - 200)
    assert np.median(under[speaks]) == pytest.approx(10 ** (-12 / 20), rel=0.05)
    assert 0.6 < np.median(under[pause]) < 1.0


def test_loud_mix_is_scaled(footage: MediaInfo, tmp_path: Path) -> None:
    """Lines and stem stay within full scale together, and the footage's own samples stay."""
    stem = write_wav(tmp_path / "stem.wav", np.tile([0.9, -0.9], RATE), RATE)
    scene = SceneSound.of(footage, [SpokenLine(Fraction(1, 2), tone(0.5))])
    found = scene.with_mix(SoundMix(file=stem, duck_db=0.0))
    sound = np.concatenate(list(found.sound.chunks))
    assert found.scale_db == pytest.approx(20 * np.log10(1.9), abs=0.05)
    assert np.abs(sound).max() <= 1.0
    np.testing.assert_array_equal(sound[: RATE // 2], heard(scene)[: RATE // 2])
