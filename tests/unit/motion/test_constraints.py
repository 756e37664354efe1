from __future__ import annotations

import numpy as np
import pytest

from services.common.face.landmarks import lip_width, mouth_opening
from services.motion.constraints import (
    CONTEXT_AHEAD,
    CONTEXT_PAST,
    LIVE,
    WHOLE,
    apply_constraints,
    closure_weights,
    silence_weights,
    voiced_share,
)
from tests.unit.motion.synthesised import mouths, rest_mouth

CONFIG = LIVE
AROUND = CONTEXT_PAST + CONTEXT_AHEAD
"""Frames around a stretch that the constraints look at."""


def test_a_sure_bilabial_shuts_its_own_frame_and_half_of_its_neighbours() -> None:
    bilabial = np.zeros(5 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 2] = 1.0
    near = CONFIG.bilabial_shape[1]
    np.testing.assert_allclose(closure_weights(bilabial, CONFIG), [0, near, 1, near, 0], atol=1e-6)


def test_lips_touch_on_a_bilabial_and_keep_their_width() -> None:
    open_wide = mouths(np.full(3, 10.0, np.float32), 4.0)
    bilabial = np.zeros(3 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 1] = 1.0
    result = apply_constraints(open_wide, rest_mouth(), bilabial, np.ones(3 + AROUND, np.float32), CONFIG)
    np.testing.assert_allclose(mouth_opening(result[1]), mouth_opening(rest_mouth()), atol=0.1)
    np.testing.assert_allclose(lip_width(result[1]), lip_width(open_wide[1]), rtol=0.02)


def test_nothing_changes_in_speech_without_bilabials() -> None:
    spoken = mouths(np.linspace(0, 9, 20).astype(np.float32))
    quiet = np.zeros(20 + AROUND, np.float32)
    np.testing.assert_array_equal(apply_constraints(spoken, rest_mouth(), quiet, quiet + 1.0, CONFIG), spoken)


def test_silence_gives_exactly_the_closed_mouth() -> None:
    silent = np.zeros(10 + AROUND, np.float32)
    result = apply_constraints(mouths(np.full(10, 7.0, np.float32)), rest_mouth(), silent, silent, CONFIG)
    np.testing.assert_allclose(result, np.repeat(rest_mouth()[None], 10, axis=0), atol=1e-4)


def test_the_mouth_shuts_gradually_when_speech_ends() -> None:
    speaking = np.concatenate([np.ones(20), np.zeros(15)]).astype(np.float32)
    weights = silence_weights(speaking, CONFIG)
    assert (np.diff(weights) >= 0).all()
    assert np.diff(weights).max() < 0.3
    assert weights[0] == 0.0
    assert weights[-1] == 1.0


def test_the_mouth_is_free_when_speech_has_begun() -> None:
    speaking = np.concatenate([np.zeros(20), np.ones(15)]).astype(np.float32)
    weights = silence_weights(speaking, CONFIG)
    onset = 20 - CONTEXT_PAST
    np.testing.assert_allclose(weights[onset - 3 : onset + 1], [1.0, 2 / 3, 1 / 3, 0.0], atol=1e-6)


def test_the_mouth_opens_before_speech_that_is_there_as_a_whole() -> None:
    speaking = np.concatenate([np.zeros(30), np.ones(15)]).astype(np.float32)
    weights = silence_weights(speaking, WHOLE)
    onset = 30 - CONTEXT_PAST
    ahead = WHOLE.frames_ahead + 1
    np.testing.assert_allclose(weights[onset - ahead : onset + 1], np.arange(ahead, -1, -1) / ahead, atol=1e-6)
    assert len(weights) == 45 - CONTEXT_PAST - WHOLE.frames_ahead


def test_lips_touch_at_the_same_frame_whatever_the_look_ahead() -> None:
    bilabial = np.zeros(20 + AROUND, np.float32)
    bilabial[CONTEXT_PAST + 3] = 1.0
    live, whole = closure_weights(bilabial, LIVE), closure_weights(bilabial, WHOLE)
    assert live.argmax() == whole.argmax() == 3
    np.testing.assert_array_equal(whole, live[: len(whole)])


def test_music_that_sounds_a_little_like_speech_keeps_the_mouth_shut() -> None:
    speaking = np.zeros(60, np.float32)
    speaking[20:25] = 0.44
    np.testing.assert_array_equal(silence_weights(speaking, CONFIG), 1.0)


def test_weak_speech_beside_strong_speech_is_spoken() -> None:
    speaking = np.full(60, 0.9, np.float32)
    speaking[20:26] = 0.35
    np.testing.assert_allclose(silence_weights(speaking, CONFIG), 0.0, atol=1e-6)


@pytest.mark.parametrize(("pause", "share"), [(3, 1.0), (6, 1.0), (12, 0.0)])
def test_a_correction_counts_in_short_pauses_and_not_in_long_ones(pause: int, share: float) -> None:
    speaking = np.full(CONTEXT_PAST + 60 + WHOLE.frames_ahead, 0.9, np.float32)
    speaking[CONTEXT_PAST + 20 : CONTEXT_PAST + 20 + pause] = 0.0
    found = voiced_share(speaking, WHOLE)
    assert found[:19].min() == found[20 + pause :].min() == 1.0
    assert found[20:].min() == share


def test_a_correction_ends_with_the_speech() -> None:
    speaking = np.zeros(CONTEXT_PAST + 60 + WHOLE.frames_ahead, np.float32)
    speaking[CONTEXT_PAST : CONTEXT_PAST + 20] = 0.9
    found = voiced_share(speaking, WHOLE)
    np.testing.assert_allclose(found[[18, 19, 20, 21, 40]], [1.0, 2 / 3, 1 / 3, 0.0, 0.0], atol=1e-6)
    live = voiced_share(speaking[: CONTEXT_PAST + 60 + LIVE.frames_ahead], LIVE)
    np.testing.assert_array_equal(live[15:], found[15:])


def test_a_piece_of_a_stretch_gives_the_same_frames() -> None:
    rng = np.random.default_rng(0)
    frames = mouths(rng.uniform(0, 9, 30).astype(np.float32))
    bilabial, speaking = (rng.uniform(0, 1, 30 + AROUND).astype(np.float32) for _ in range(2))
    whole = apply_constraints(frames, rest_mouth(), bilabial, speaking, CONFIG)
    piece = apply_constraints(frames[11:19], rest_mouth(), bilabial[11 : 19 + AROUND], speaking[11 : 19 + AROUND], CONFIG)
    np.testing.assert_array_equal(piece, whole[11:19])
