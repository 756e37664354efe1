"""States of the speech encoder as features: fixed windows, look-ahead, memory."""

from __future__ import annotations

import gc
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from services.audio.extract import FeatureExtractor, collect, extract_features
from services.audio.models import WEIGHTS, AudioModels
from services.audio.speech_encoder import FILES, LIVE, SpeechStateModel, WindowPlan
from services.audio.types import ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME, FeatureBlock
from services.audio.voice_activity import STATE_S
from services.common.array_types import Float32
from services.common.wire.timeline import Timeline
from services.motion.models import WEIGHTS as MOTION_WEIGHTS
from services.motion.models import MotionModels
from services.motion.speech_map import LIVE as LIVE_MOUTH
from services.motion.speech_map import VOICE_ACTIVITY_PAST, SpeechMapModel
from services.motion.speech_states import neighbours

PAL = Timeline(rate=Fraction(25))
NTSC = Timeline(rate=Fraction(30000, 1001))
FRAME_SAMPLES = 640
ROW_SAMPLES = 160
MARGIN_SAMPLES = 160
"""10 ms: half an analysis window beyond the last row, and the resampler."""
PLANS = [("speech_states", FILES), ("speech_states_live", LIVE)]
BOTH = frozenset({"speech_states", "speech_states_live"})


def extractor(models: AudioModels, kinds: frozenset[str], timeline: Timeline = PAL) -> FeatureExtractor:
    return FeatureExtractor(models, sample_rate_hz=16000, channels=1, timeline=timeline, kinds=kinds)


@pytest.mark.parametrize("plan", [FILES, LIVE], ids=["files", "live"])
def test_windows_begin_at_states(plan: WindowPlan) -> None:
    """An extractor that begins STATE_S before a state has windows at the same frames, and the frames before the first one."""
    frames = STATE_S * ROWS_PER_SECOND // ROWS_PER_VIDEO_FRAME
    assert frames % plan.answered == 0
    assert plan.past < frames


def last_frame_of_window(frame: int, plan: WindowPlan) -> int:
    return (frame // plan.answered + 1) * plan.answered - 1


@pytest.mark.parametrize("timeline", [PAL, NTSC], ids=["25", "29.97"])
def test_pieces_change_no_bit(models: AudioModels, speech: Float32, timeline: Timeline) -> None:
    samples = np.concatenate([speech, 0.5 * speech[8000:]])

    def streamed(cuts: list[int]) -> bytes:
        stream = extractor(models, BOTH, timeline)
        blocks: list[FeatureBlock] = []
        for start, end in pairwise([0, *cuts, len(samples)]):
            blocks += stream.push(start, samples[start:end])
        blocks += stream.finish()
        found = collect(blocks, BOTH)
        return found["speech_states"].tobytes() + found["speech_states_live"].tobytes()

    whole = streamed([])
    random = np.random.default_rng(3).choice(np.arange(1, len(samples)), 40, replace=False)
    for cuts in (list(range(1000, len(samples), 1000)), sorted(random.tolist())):
        assert streamed(cuts) == whole


@pytest.mark.parametrize(("name", "plan"), PLANS)
def test_a_frame_comes_once_its_window_is_there(models: AudioModels, speech: Float32, name: str, plan: WindowPlan) -> None:
    samples = np.concatenate([speech, speech])
    stream, answered, step = extractor(models, frozenset({name})), 0, 80
    for start in range(0, len(samples), step):
        for block in stream.push(start, samples[start : start + step]):
            needed = FRAME_SAMPLES * (last_frame_of_window(block.frame_index, plan) + 1) + ROW_SAMPLES * plan.rows_ahead
            assert needed < start + step <= needed + MARGIN_SAMPLES + step
            answered += 1
    assert answered >= plan.answered


@pytest.mark.parametrize(("name", "plan"), PLANS)
def test_what_comes_after_the_window_changes_nothing(models: AudioModels, speech: Float32, name: str, plan: WindowPlan) -> None:
    samples = np.concatenate([speech, speech])
    frame = plan.answered - 1
    cut = FRAME_SAMPLES * (frame + 1) + ROW_SAMPLES * plan.rows_ahead + MARGIN_SAMPLES
    changed = samples.copy()
    changed[cut:] = np.random.default_rng(5).standard_normal(len(samples) - cut).astype(np.float32)
    first, second = (extract_features(each, 16000, PAL, frozenset({name}), models=models)[name] for each in (samples, changed))
    assert first[: frame + 1].tobytes() == second[: frame + 1].tobytes()
    assert not np.array_equal(first[frame + 1], second[frame + 1])


@pytest.mark.parametrize(("name", "plan"), PLANS)
def test_what_came_before_the_window_changes_nothing(models: AudioModels, speech: Float32, name: str, plan: WindowPlan) -> None:
    windows = -(-(plan.past + 2) // plan.answered)
    begin = windows * plan.answered
    until = FRAME_SAMPLES * (begin - plan.past) - MARGIN_SAMPLES
    samples = np.concatenate([speech] * 3)
    other = samples.copy()
    other[:until] = 0.0
    first, second = (extract_features(each, 16000, PAL, frozenset({name}), models=models)[name] for each in (samples, other))
    assert first[begin:].tobytes() == second[begin:].tobytes()
    assert not np.array_equal(first[: begin - plan.answered], second[: begin - plan.answered])


def test_live_look_ahead_limit(models: AudioModels, speech: Float32) -> None:
    """The mouth of a frame needs the features of the frames after it that the map of live speech hears."""
    stream, step = extractor(models, frozenset({"speech_states_live"})), 80
    waits: list[float] = []
    for start in range(0, len(speech), step):
        for block in stream.push(start, speech[start : start + step]):
            mouth = block.frame_index - LIVE_MOUTH.ahead
            if mouth >= 0:
                waits.append((start + step - FRAME_SAMPLES * (mouth + 1)) / 16.0)
    assert len(waits) > 20
    assert 110.0 < max(waits) <= 160.0


def test_voice_activity_hears_speech_at_once_and_no_noise(models: AudioModels, speech: Float32) -> None:
    """States tell the beginning of speech no later than the detector of the audio stage, and hear none in silence or noise."""
    activity = MotionModels(MOTION_WEIGHTS).own(SpeechMapModel).voice_activity
    assert activity is not None

    def heard(samples: Float32) -> tuple[Float32, Float32]:
        kinds = frozenset({"speech_states_live", "speech_probability"})
        found = extract_features(samples.astype(np.float32), 16000, PAL, kinds, models=models)
        windows = neighbours(found["speech_states_live"], VOICE_ACTIVITY_PAST, 0)
        return np.array([activity.probability(window) for window in windows], np.float32), found["speech_probability"]

    before = np.zeros(16000, np.float32)
    states, detector = heard(np.concatenate([before, speech]))
    first_states, first_detector = (int(np.argmax(values > level)) for values, level in ((states, 0.9), (detector, 0.5)))
    assert 24 <= first_states <= first_detector
    assert states[:23].max() < 0.5
    rng, seconds = np.random.default_rng(8), np.arange(32000) / 16000.0
    for noise in (0.05 * rng.normal(size=32000), 0.1 * np.sin(2.0 * np.pi * 440.0 * seconds)):
        assert heard(np.concatenate([before, noise]))[0].max() < 0.8


def test_live_states_follow_the_states_of_files(models: AudioModels, speech: Float32) -> None:
    """Both hear the same speech with other context: over a component, they vary together."""
    found = extract_features(speech, 16000, PAL, BOTH, models=models)
    whole, live = found["speech_states"], found["speech_states_live"]
    largest = [component for block in (0, 96) for component in range(block, block + 3)]
    assert min(np.corrcoef(whole[:, each], live[:, each])[0, 1] for each in largest) > 0.8


def test_a_long_silence_is_run_once(monkeypatch: pytest.MonkeyPatch, models: AudioModels) -> None:
    runs = []
    original = SpeechStateModel.answered

    def counted(self: SpeechStateModel, window: Float32) -> Float32:
        runs.append(1)
        return original(self, window)

    monkeypatch.setattr(SpeechStateModel, "answered", counted)
    found = extract_features(np.zeros(80_000, np.float32), 16000, PAL, frozenset({"speech_states_live"}), models=models)
    assert len(runs) <= 2  # one for the rows before time zero
    windows = found["speech_states_live"][:124].reshape(-1, LIVE.answered, 192)
    assert (windows == windows[0]).all()


def test_frames_before_the_sound_hear_silence(models: AudioModels, speech: Float32) -> None:
    timeline = Timeline(pts=np.array([-400, 200], np.int64), time_base=Fraction(1, 1000))
    for name, _ in PLANS:
        found = extract_features(speech, 16000, timeline, frozenset({name}), models=models)[name]
        np.testing.assert_array_equal(found[0], models[name].silence[0])
        assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize(("name", "plan"), PLANS)
def test_memory_does_not_grow_with_the_stream(models: AudioModels, name: str, plan: WindowPlan) -> None:
    chunk = (np.random.default_rng(8).standard_normal(16000) * 0.05).astype(np.float32)
    stream = extractor(models, frozenset({name}))
    held = []
    tracemalloc.start()
    try:
        for second in range(17):
            stream.push(second * 16000, chunk)
            if second in (8, 16):  # the same place of a window of two seconds
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Eight seconds of sound are 512 000 bytes, their states 153 600.
    assert held[1] < held[0] + 60_000


def test_threads_change_no_bit(speech: Float32) -> None:
    one, two = AudioModels(WEIGHTS, 1), AudioModels(WEIGHTS, 2)
    for name, _ in PLANS:
        first, second = (extract_features(speech, 16000, PAL, frozenset({name}), models=each)[name] for each in (one, two))
        assert first.tobytes() == second.tobytes()
