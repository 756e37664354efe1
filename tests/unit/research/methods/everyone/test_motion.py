"""Tests of the training of `everyone`: the closed-form filter, and batches of spans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from research.methods.everyone.motion import (
    SPAN_FRAMES,
    EveryoneBatchConfig,
    EveryoneBatchSampler,
    FilterConfig,
    alone,
    filter_inputs,
    fit_filter,
)
from research.motion.basis import ExpressionSpace, committed_basis
from research.motion.clips import Clips, TrainingClip
from services.common.wire.phones import PHONES
from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.network import FILTER_PAST
from services.motion.predictors.everyone.predictor import PAPER_CHANNELS, WINDOW, num_channels
from services.motion.speech_states import NUM_STATES, STATES, STATES_PAST, SpeechInput
from tests.unit.motion.made_clips import in_memory, made_clip

SPACE = ExpressionSpace.of(committed_basis(), 3)
PLAIN = EveryoneBatchConfig(
    batch_size=8,
    speed_range=(1.0, 1.0),
    sharpness_range=(1.0, 1.0),
    confusion=0.0,
    grouping=0.0,
    blur=0.0,
    band_tilt=0.0,
    band_gain=(1.0, 1.0),
    level=0.0,
    rest_jitter=0.0,
)


def sampler(clips: Clips, config: EveryoneBatchConfig, heard: SpeechInput = "both") -> EveryoneBatchSampler:
    return EveryoneBatchSampler(clips, SPACE, fit_filter(clips, SPACE, FilterConfig(), heard), config, heard)


def test_batches_are_seeded_and_have_their_shapes(clips: Clips) -> None:
    drawing = sampler(clips, EveryoneBatchConfig(batch_size=4))
    one, again = (drawing.draw(np.random.default_rng(1)) for _ in range(2))
    for first, second in zip(one, again, strict=True):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.float32
    assert one.speech.shape == (4, SPAN_FRAMES, num_channels("both"))
    assert one.offsets.shape == (4, WINDOW, 59, 3)
    assert one.alone.shape == (4, WINDOW, 3)
    np.testing.assert_allclose(one.speech[..., :40].sum(-1), 1.0, atol=1e-4)
    for heard in ("phones", "states"):
        part = sampler(clips, EveryoneBatchConfig(batch_size=4), heard).draw(np.random.default_rng(1)).speech
        own = one.speech[..., :PAPER_CHANNELS] if heard == "phones" else one.speech[..., PAPER_CHANNELS:]
        np.testing.assert_array_equal(part, own)


def test_sound_and_mouth_of_a_stretch_belong_together(clips: Clips) -> None:
    # Mouths of these clips open with the probability of "AA" of this frame and of the frame before.
    drawn = sampler(clips, PLAIN).draw(np.random.default_rng(2))
    content = drawn.speech[:, FILTER_PAST : FILTER_PAST + WINDOW, :PAPER_CHANNELS].reshape(-1, WINDOW, 4, NUM_CONTENT)
    vowel = content[..., 1].mean(axis=2)
    lower = drawn.offsets[:, :, 30:40, 1].max(axis=2)
    both = (drawn.valid[:, 1:-1] > 0).ravel()
    near = (vowel[:, :-2] + 2.0 * vowel[:, 1:-1] + vowel[:, 2:]).ravel()
    assert np.corrcoef(near[both], lower[:, 1:-1].ravel()[both])[0, 1] > 0.7


def test_stretches_reach_beyond_both_ends_of_a_clip(clips: Clips) -> None:
    drawn = sampler(clips, EveryoneBatchConfig(batch_size=64)).draw(np.random.default_rng(3))
    assert (drawn.valid[:, 0] == 0).any()
    assert (drawn.valid[:, -1] == 0).any()
    assert (drawn.valid.sum(axis=1) >= WINDOW // 2 - 2).all()


def test_narrow_corpus_with_spans() -> None:
    """Facts that hold in a narrow corpus alone come with its spans."""
    narrow: list[TrainingClip] = [replace(made_clip(index), apart="commands") for index in range(2)]
    drawn = sampler(in_memory([*narrow, made_clip(2)]), EveryoneBatchConfig(batch_size=12)).draw(np.random.default_rng(1))
    assert {bool(each.any()) for each in drawn.alone} == {True, False}


def test_filter_hears_opening_vowel(clips: Clips) -> None:
    """The filter hears the vowel that opens the mouth."""
    fitted = fit_filter(clips, SPACE, FilterConfig(), "phones")
    other = made_clip(9)
    truth = SPACE.target(other.mouth_landmarks, other.usable).coefficients
    found = fitted.shared(filter_inputs(other, "phones"))
    moving = int(truth.std(axis=0).argmax())
    assert np.corrcoef(found[:, moving], truth[:, moving])[0, 1] > 0.6
    weight = np.abs(fitted.shared.weight[moving]).reshape(-1, 2, NUM_CONTENT).sum(axis=1)
    frame, channel = np.unravel_index(weight.argmax(), weight.shape)
    assert channel == PHONES.index("AA")
    assert abs(int(frame) - FILTER_PAST) <= 1


def test_a_narrow_corpus_keeps_what_holds_there_alone() -> None:
    narrow = replace(made_clip(0), apart="commands")
    fitted = fit_filter(in_memory([narrow, made_clip(2)]), SPACE, FilterConfig(), "phones")
    assert np.abs(alone(narrow, fitted, "phones")).max() > 0.01
    assert not alone(made_clip(2), fitted, "phones").any()


def test_state_filter_hears_component() -> None:
    """The filter of states hears the component that opens the mouth."""
    made = [made_clip(index) for index in range(4)]
    for clip in made:
        opening = clip.mouth_landmarks[:, 35, 1] - clip.mouth_landmarks[:, 5, 1]
        clip.features.extra[STATES][:, 120] = opening / opening.std()
    fitted = fit_filter(in_memory(made), SPACE, FilterConfig(), "states")
    truth = SPACE.target(made[0].mouth_landmarks, made[0].usable).coefficients
    moving = int(truth.std(axis=0).argmax())
    weight = np.abs(fitted.shared.weight[moving]).reshape(-1, NUM_STATES)
    assert np.unravel_index(weight.argmax(), weight.shape) == (STATES_PAST, 120)
    found = fitted.shared(filter_inputs(made[0], "states"))
    assert np.corrcoef(found[:, moving], truth[:, moving])[0, 1] > 0.9
