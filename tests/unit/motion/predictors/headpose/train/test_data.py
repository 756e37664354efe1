"""Targets, sequences and the closed-form filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.motion.models import MotionModels
from services.motion.predictors.headpose.model import HeadposeModel
from services.motion.predictors.headpose.network import CHANNELS, NUM_HEARD
from services.motion.predictors.headpose.train.data import HeadposeSampler, clip_poses, fit_filter, prepare
from services.motion.predictors.headpose.train.torch_predictor import heard_channels
from services.motion.train.clips import shifted
from tests.unit.motion.predictors.headpose.tiny import SMALL, made, network, tracked, zeros


def test_the_filter_finds_the_channel_and_the_frame() -> None:
    clips = [made("a", 0, 1200), made("b", 1, 1200)]
    everything = np.ones(NUM_HEARD, np.bool_)
    linear = fit_filter(clips, {"a": 1.0, "b": 1.0}, 0.01, SMALL, everything)
    weight = np.abs(linear.weight[0]).reshape(SMALL.window, CHANNELS)
    assert np.unravel_index(weight.argmax(), weight.shape) == (SMALL.past, NUM_HEARD + 3)
    net = network()
    net.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    torch.nn.init.zeros_(net.expression.weight)
    with torch.inference_mode():
        served = net(torch.from_numpy(made("c", 2).rows)[None], zeros(), zeros()).expression[0, :, 0].numpy()
    assert np.corrcoef(served, made("c", 2).expression[SMALL.past : -SMALL.ahead, 0])[0, 1] > 0.7


def test_channels_that_are_not_heard_have_no_weight() -> None:
    channels = heard_channels("phones")
    linear = fit_filter([made("a", 0)], {"a": 1.0}, 0.1, SMALL, channels)
    weight = linear.weight.reshape(-1, SMALL.window * 4, NUM_HEARD)
    assert not weight[..., ~channels].any()
    assert weight[..., channels].any()


def test_sequences_are_seeded_and_as_long_as_asked_for() -> None:
    sampler = HeadposeSampler([made("a", 0), made("b", 1)], {"a": 1.0, "b": 1.0}, SMALL)
    drawn = sampler.draw(np.random.default_rng(3), 3, 150)
    assert drawn.window.shape == (3, 150 + SMALL.window - 1, 4, NUM_HEARD)
    assert drawn.pose.shape == (3, 150, 6)
    # The frame that a step is about lies `past` frames into its window.
    torch.testing.assert_close(drawn.expression[:, :, 0], drawn.window[:, SMALL.past : SMALL.past + 150, 1, 3])
    torch.testing.assert_close(drawn.window, sampler.draw(np.random.default_rng(3), 3, 150).window)


def test_targets_are_about_the_clips_mean_in_units_of_the_speakers_spread(models: MotionModels) -> None:
    clips = [tracked(0), tracked(1)]
    prepared = prepare(clips, models.basis, HeadposeModel.of(models).basis)
    for clip, each in zip(clips, prepared, strict=True):
        np.testing.assert_allclose(each.pose.mean(axis=0), 0.0, atol=1e-4)
        np.testing.assert_allclose((each.pose**2).mean(axis=0), 1.0, rtol=0.02)
        assert np.corrcoef(each.pose[:, 1], clip_poses(clip)[:, 1])[0, 1] == pytest.approx(1.0)


def test_a_lag_moves_poses_with_the_picture() -> None:
    clip = tracked(0)
    moved = shifted(clip, 3)
    assert clip.poses is not None
    assert moved.poses is not None
    np.testing.assert_array_equal(moved.poses, clip.poses[: len(clip) - 3])
    np.testing.assert_array_equal(shifted(clip, -3).poses, clip.poses[3:])
