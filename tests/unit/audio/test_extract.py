import gc
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from services.audio.extract import ExtractorState, FeatureExtractor, MonoResampler, collect, extract_features
from services.audio.models import ALL_KINDS, KINDS, AudioModels
from services.audio.types import FeatureBlock
from services.audio.voice_activity import STATE_SHAPE, VoiceState
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.wire.phones import PHONE_INDEX
from services.common.wire.timeline import Timeline

LOOK_AHEAD_SAMPLES = 960
"""16 kHz samples after a frame's last row within which all its features are known: 60 ms."""
STATES = frozenset({"speech_states", "speech_states_live"})
"""Kinds with another look-ahead; tests/unit/audio/speech_encoder has their tests."""
PAL = Timeline(rate=Fraction(25))
NTSC = Timeline(rate=Fraction(30000, 1001))


def converted(samples: Float32, rate_hz: int, channels: int, cut: int) -> Float32:
    resampler = MonoResampler(rate_hz, channels)
    step = cut * channels
    parts = [resampler.push(samples[start : start + step]) for start in range(0, len(samples), step)]
    return np.concatenate([*parts, resampler.finish()])


def tone(rate_hz: int, hz: float, seconds: float = 0.3) -> Float32:
    return np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_resampling_keeps_tone(rate_hz: int) -> None:
    """A tone keeps its pitch phase and level at every rate."""
    result = converted(tone(rate_hz, 1000.0), rate_hz, 1, rate_hz)
    expected = tone(16000, 1000.0)
    assert abs(len(result) - len(expected)) <= 1
    assert np.abs(result[200:4000] - expected[200:4000]).max() < 1e-3


@pytest.mark.parametrize("rate_hz", [44100, 48000, 96000])
def test_tones_that_16_khz_cannot_hold_are_removed(rate_hz: int) -> None:
    result = converted(tone(rate_hz, 9500.0), rate_hz, 1, rate_hz)
    assert np.sqrt(np.mean(result[200:-200] ** 2)) < 1e-3


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 96000])
def test_chunks_change_no_bit_of_resampled_sound(rate_hz: int) -> None:
    noise = np.random.default_rng(1).standard_normal(2 * int(0.05 * rate_hz)).astype(np.float32)
    whole = converted(noise, rate_hz, 2, len(noise))
    for cut in (1 if rate_hz == 8000 else 23, 160, 1013):
        assert converted(noise, rate_hz, 2, cut).tobytes() == whole.tobytes()


def test_eight_channels_are_averaged() -> None:
    mono = tone(96000, 440.0)
    channels = np.zeros((len(mono), 8), np.float32)
    channels[:, 2] = 8.0 * mono
    assert np.allclose(converted(channels.reshape(-1), 96000, 8, 500), converted(mono, 96000, 1, 500), atol=1e-6)


def test_look_ahead_under_limit() -> None:
    """The look ahead is under two and a half milliseconds."""
    for rate_hz in (8000, 44100, 48000, 96000):
        resampler = MonoResampler(rate_hz, 1)
        given = len(resampler.push(np.zeros(rate_hz, np.float32)))
        assert 16000 - given <= 0.0025 * 16000


def test_a_sample_that_is_no_number_is_named() -> None:
    resampler = MonoResampler(48000, 2)
    resampler.push(np.zeros(200, np.float32))
    bad = np.zeros(20, np.float32)
    bad[7] = np.nan
    with pytest.raises(InvalidRequestError, match="sample 103 of channel 1") as caught:
        resampler.push(bad)
    assert caught.value.field == "chunk.pcm_f32"


@pytest.mark.parametrize(("rate_hz", "channels", "field"), [(4000, 1, "sample_rate_hz"), (48000, 0, "channels")])
def test_rates_and_channels_out_of_range_are_refused(rate_hz: int, channels: int, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        MonoResampler(rate_hz, channels)
    assert caught.value.field == f"config.{field}"


def test_odd_rate_filters_need_little_memory() -> None:
    """Filters of odd rates are made in little memory."""
    tracemalloc.start()
    try:
        resampler = MonoResampler(47_999, 1)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert resampler.num_emitted == 0
    assert held > 16_000 * 100 * 8, "a phase of taps for every output sample of a second"
    assert peak < 1.5 * held + 10e6


@pytest.mark.parametrize(("value", "says"), [(np.nan, "nan"), (-np.inf, "-inf"), (2e6, "is 2e[+]06, beyond 1e[+]06")])
def test_invalid_sample_shows_value(value: float, says: str) -> None:
    """A sample that is none is named with its value."""
    samples = np.zeros(20, np.float32)
    samples[13] = value
    resampler = MonoResampler(16000, 2)
    resampler.push(np.zeros(8, np.float32))
    with pytest.raises(InvalidRequestError, match=rf"sample 10 of channel 1 .*{says}"):
        resampler.push(samples)


@pytest.mark.parametrize(("rate_hz", "channels", "says"), [(1, 1, "8000 to 192000 Hz, got 1"), (16000, 24, "1 to 16, got 24")])
def test_rate_or_channels_out_of_range(rate_hz: int, channels: int, says: str) -> None:
    """A rate or channels out of range are reported with the range."""
    with pytest.raises(InvalidRequestError, match=says):
        MonoResampler(rate_hz, channels)


def streamed(
    models: AudioModels,
    samples: Float32,
    cuts: list[int],
    *,
    rate_hz: int = 16000,
    channels: int = 1,
    timeline: Timeline = PAL,
    num_frames: int = 0,
) -> dict[str, Float32]:
    extractor = FeatureExtractor(models, sample_rate_hz=rate_hz, channels=channels, timeline=timeline, num_frames=num_frames)
    blocks: list[FeatureBlock] = []
    for start, end in pairwise([0, *cuts, len(samples) // channels]):
        blocks += extractor.push(start, samples[start * channels : end * channels])
    blocks += extractor.finish()
    assert [block.frame_index for block in blocks] == list(range(len(blocks)))
    return collect(blocks, ALL_KINDS)


def as_bytes(features: dict[str, Float32]) -> bytes:
    return b"".join(features[name].tobytes() for name in KINDS)


@pytest.mark.parametrize("timeline", [PAL, NTSC], ids=["25", "29.97"])
def test_chunks_change_no_bit(models: AudioModels, speech: Float32, timeline: Timeline) -> None:
    samples = speech[16000:32000]
    whole = as_bytes(streamed(models, samples, [], timeline=timeline))
    random = np.random.default_rng(3)
    for cuts in (
        list(range(160, 16000, 160)),
        list(range(1000, 16000, 1000)),
        sorted(random.choice(np.arange(1, 16000), 25, replace=False).tolist()),
    ):
        assert as_bytes(streamed(models, samples, cuts, timeline=timeline)) == whole


def test_chunks_change_no_bit_at_44100_hz_stereo(models: AudioModels) -> None:
    noise = (np.random.default_rng(4).standard_normal(2 * 22050) * 0.1).astype(np.float32)
    whole = as_bytes(streamed(models, noise, [], rate_hz=44100, channels=2))
    assert as_bytes(streamed(models, noise, list(range(333, 22050, 333)), rate_hz=44100, channels=2)) == whole


def test_shapes_and_ranges(models: AudioModels, speech: Float32) -> None:
    features = extract_features(speech, 16000, PAL, models=models)
    assert features["mel"].shape == (75, 4, 80)
    assert features["mfcc"].shape == (75, 4, 40)
    assert features["posteriorgram"].shape == (75, 4, 40)
    assert np.allclose(features["posteriorgram"].sum(axis=2), 1.0, atol=1e-5)
    assert features["speech_probability"].shape == (75,)
    assert features["speech_states"].shape == features["speech_states_live"].shape == (75, 192)
    assert len(as_bytes(features)) == 4 * 75 * (4 * 180 + 2 * 192 + 1)


def test_kinds_not_asked_for_are_left_out(models: AudioModels, speech: Float32) -> None:
    features = extract_features(speech[:8000], 16000, PAL, frozenset({"mel"}), models=models)
    assert features.keys() == {"mel"}


def test_block_follows_its_look_ahead(models: AudioModels, speech: Float32) -> None:
    """Frame n covers samples up to 640 (n + 1); 60 ms later at the latest its block is out, and never before it ends."""
    extractor = FeatureExtractor(models, sample_rate_hz=16000, channels=1, timeline=PAL, kinds=ALL_KINDS - STATES)
    answered = 0
    for start in range(0, 16000, 40):
        for block in extractor.push(start, speech[start : start + 40]):
            frame_end = 640 * (block.frame_index + 1)
            assert frame_end < start + 40 <= frame_end + LOOK_AHEAD_SAMPLES
            answered += 1
    assert answered == 23


def test_what_comes_60_ms_later_changes_nothing(models: AudioModels, speech: Float32) -> None:
    cut = 40 * 640 + LOOK_AHEAD_SAMPLES
    changed = speech.copy()
    changed[cut:] = np.random.default_rng(5).standard_normal(len(speech) - cut).astype(np.float32)
    first = extract_features(speech, 16000, PAL, models=models)
    second = extract_features(changed, 16000, PAL, models=models)
    for kept, other in ((first[name], second[name]) for name in ("mel", "mfcc", "posteriorgram")):
        assert kept[:40].tobytes() == other[:40].tobytes()
        assert kept[41:].tobytes() != other[41:].tobytes()


def pulses(rate_hz: int) -> Float32:
    """A second of a buzz of 130 Hz whose harmonics end at 3 kHz."""
    time_s = np.arange(rate_hz) / rate_hz
    harmonics = np.stack([np.sin(2 * np.pi * 130 * k * time_s) / k for k in range(1, 24)])
    return np.asarray(0.1 * harmonics.sum(axis=0), dtype=np.float32)


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 1), (44100, 2), (48000, 6), (96000, 8)])
def test_features_independent_of_rate(models: AudioModels, speech: Float32, rate_hz: int, channels: int) -> None:
    """A band-limited signal at any rate must look as it does at 16 kHz."""
    wide = np.repeat(pulses(rate_hz)[:, None], channels, axis=1)
    features = extract_features(wide, rate_hz, PAL, models=models)
    expected = extract_features(pulses(16000), 16000, PAL, models=models)
    assert features["mel"].shape == (25, 4, 80)
    # Up to 3 kHz, away from the edges, where all rates hold the signal.
    assert np.abs(features["mel"][2:-2, :, :45] - expected["mel"][2:-2, :, :45]).max() < 0.05


def test_the_number_of_frames_can_be_asked_for(models: AudioModels, speech: Float32) -> None:
    longer = extract_features(speech[:16000], 16000, PAL, models=models, num_frames=60)
    shorter = extract_features(speech[:16000], 16000, PAL, models=models, num_frames=10)
    default = extract_features(speech[:16000], 16000, PAL, models=models)
    assert len(longer["posteriorgram"]) == 60
    assert len(default["posteriorgram"]) == 25
    assert shorter["posteriorgram"].tobytes() == default["posteriorgram"][:10].tobytes()
    assert longer["posteriorgram"][:25].tobytes() == default["posteriorgram"].tobytes()
    assert longer["speech_probability"][35:].max() == 0.0
    # The window of a row holds .49 s of the past.
    assert longer["posteriorgram"][25 + 13 :, :, PHONE_INDEX["SIL"]].min() > 0.6


def test_frames_between_rows_are_interpolated(models: AudioModels, speech: Float32) -> None:
    """Explicit times, one frame half a row after another's: its rows are the means of their neighbours."""
    timeline = Timeline(pts=np.array([-40, 200, 205, 1000], np.int64), time_base=Fraction(1, 1000))
    features = extract_features(speech, 16000, timeline, models=models)
    assert len(features["mel"]) == 4
    assert np.allclose(features["mel"][2][:3], (features["mel"][1][:3] + features["mel"][1][1:]) / 2, atol=1e-6)
    assert np.allclose(features["posteriorgram"][0, :, 0], 1.0)  # before the speech begins there is silence
    grid = extract_features(speech, 16000, PAL, models=models)
    assert features["mel"][3].tobytes() == grid["mel"][25].tobytes()


@pytest.mark.parametrize("num_frames", [0, 10])
def test_memory_does_not_grow_with_the_stream(models: AudioModels, num_frames: int) -> None:
    chunk = (np.random.default_rng(8).standard_normal(16000) * 0.05).astype(np.float32)
    extractor = FeatureExtractor(
        models, sample_rate_hz=16000, channels=1, timeline=PAL, kinds=frozenset({"mel"}), num_frames=num_frames
    )
    extractor.push(0, chunk)
    gc.collect()
    tracemalloc.start()
    try:
        held = []
        for second in range(1, 7):
            extractor.push(second * 16000, chunk)
            if second in (2, 6):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Other threads hold some kilobytes now and then. Four seconds of features are 128 000 bytes, their samples 256 000.
    assert held[1] < held[0] + 60_000


def test_an_unknown_kind_is_refused_by_name(models: AudioModels) -> None:
    with pytest.raises(InvalidRequestError, match=r"no kind 'loudness', only mel, mfcc") as caught:
        FeatureExtractor(models, sample_rate_hz=16000, channels=1, timeline=PAL, kinds=frozenset({"mel", "loudness"}))
    assert caught.value.field == "config.kinds"


@pytest.mark.parametrize("name", sorted(ALL_KINDS))
def test_kinds_have_declared_shapes(models: AudioModels, speech: Float32, name: str) -> None:
    """Every kind has the shape that the table says, and silence has four rows."""
    found = extract_features(speech[:8000], 16000, PAL, frozenset({name}), models=models)
    assert found.keys() == {name}
    assert found[name].dtype == np.float32
    assert found[name].shape == (13, *KINDS[name].frame_shape)
    assert models[name].silence.shape == (4, *(found[name].shape[1:] if name in STATES else KINDS[name].frame_shape[1:]))


def test_no_samples_give_no_frames_or_silent_ones(models: AudioModels) -> None:
    nothing = np.zeros(0, np.float32)
    assert extract_features(nothing, 48000, PAL, models=models)["posteriorgram"].shape == (0, 4, 40)
    silent = extract_features(nothing, 48000, PAL, models=models, num_frames=3)
    assert len(silent["posteriorgram"]) == 3


def test_chunks_out_of_order_are_refused_by_name(models: AudioModels, speech: Float32) -> None:
    extractor = FeatureExtractor(models, sample_rate_hz=16000, channels=1, timeline=PAL, kinds=ALL_KINDS)
    extractor.push(0, speech[:100])
    with pytest.raises(InvalidRequestError, match="expected 100, got 200") as caught:
        extractor.push(200, speech[200:300])
    assert caught.value.field == "chunk.first_sample"


def test_more_frames_than_the_timeline_has_are_refused(models: AudioModels) -> None:
    timeline = Timeline(pts=np.arange(5, dtype=np.int64), time_base=Fraction(1, 25))
    with pytest.raises(InvalidRequestError) as caught:
        FeatureExtractor(models, sample_rate_hz=16000, channels=1, timeline=timeline, num_frames=6)
    assert caught.value.field == "config.num_frames"


@pytest.mark.parametrize("rate_hz", [8000, 11025, 44100, 48000])
def test_frames_follow_the_samples_after_eight_hours(models: AudioModels, rate_hz: int) -> None:
    """The same sound eight hours later gives the same bits, 720,000 frames later: no clock and no rounding moves a frame."""
    sound = np.random.default_rng(3).normal(0.0, 0.1, 6 * rate_hz).astype(np.float32)
    kinds = frozenset({"mel", "speech_probability"})

    def heard(second: int) -> dict[str, Float32]:
        silent = np.zeros(STATE_SHAPE, np.float32)
        state = ExtractorState(VoiceState(second, silent, silent), 25 * second)
        extractor = FeatureExtractor(
            models, sample_rate_hz=rate_hz, channels=1, timeline=Timeline(rate=Fraction(25)), kinds=kinds, resume=state
        )
        blocks = extractor.push(extractor.resume_from(state), sound)
        assert [block.frame_index for block in blocks] == list(range(25 * second, 25 * second + len(blocks)))
        return collect(blocks, kinds)

    early, late = heard(8), heard(8 * 3600)
    assert len(early["mel"]) > 25
    for kind in kinds:
        assert early[kind].tobytes() == late[kind].tobytes()
