"""Which lags are applied: those of a voice that is shown to be the person's own."""

from __future__ import annotations

import pytest

from gateway.pipeline.lag import SoundLag, believed


def lag(frames: int, confidence: float, num_frames: int = 250, *, at_end: bool = False) -> SoundLag:
    return SoundLag(frames, confidence, 1.1, num_frames, at_end)


@pytest.mark.parametrize(("confidence", "num_frames"), [(0.25, 7500), (0.25, 250), (0.39, 60), (0.55, 30)])
def test_a_confident_lag_is_applied(confidence: float, num_frames: int) -> None:
    found = lag(-3, confidence, num_frames)
    assert believed(found, {}) is found


@pytest.mark.parametrize(("confidence", "num_frames", "least"), [(0.24, 7500, "0.25"), (0.38, 60, "0.39"), (0.5, 30, "0.55")])
def test_the_shorter_the_clip_the_more_confidence_a_lag_needs(confidence: float, num_frames: int, least: str) -> None:
    found = believed(lag(-3, confidence, num_frames), {})
    assert found.frames is None
    assert found.confidence == confidence
    assert found.doubt == (
        f"the confidence is {confidence:.2f}, and {num_frames} frames need {least}; the lag that fits best, -3 frames of 40 ms, "
        "is not applied"
    )


def test_a_lag_at_the_end_of_the_search_is_not_applied() -> None:
    assert "larger lags were not searched" in believed(lag(15, 0.5, at_end=True), {}).doubt


def test_the_voice_belongs_to_the_face_that_it_fits_better_on_the_shared_frames() -> None:
    listener, speaker = lag(-14, 0.3, 120), lag(1, 0.5, 120)
    assert believed(listener, {4: speaker}).doubt.startswith("the mouth of face 4 fits the sound better")
    assert believed(speaker, {0: listener}) is speaker


def test_a_few_frames_with_an_interviewer_do_not_outweigh_minutes_of_the_persons_own_speech() -> None:
    own, interviewer = lag(1, 0.35, 7500), lag(0, 0.5, 250)
    assert believed(own, {2: interviewer}) is own


def test_a_lag_that_cannot_be_measured_raises_no_doubt() -> None:
    assert believed(SoundLag(), {4: lag(1, 0.5)}) == SoundLag()
