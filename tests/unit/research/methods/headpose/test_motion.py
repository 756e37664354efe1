"""Tests of the training of `headpose`: the losses of Eq. 2, targets, sequences, and the closed-form filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from research.methods.headpose.motion import (
    HeadposeBatch,
    HeadposeLossWeights,
    HeadposeSampler,
    HeadposeTrainingConfig,
    clip_poses,
    fit_filter,
    headpose_loss,
    input_channels,
    pose_spread,
    prepare,
)
from research.motion.basis import ExpressionSpace, committed_basis
from services.motion.predictors.headpose.network import HeadposeConfig, SpeechInput
from tests.unit.motion.made_clips import in_memory
from tests.unit.motion.predictors.headpose.tiny import SMALL, fitted, made, network, tracked, zeros


@pytest.fixture(scope="module")
def space() -> ExpressionSpace:
    return ExpressionSpace.of(committed_basis())


def test_the_filter_finds_the_channel_and_the_frame() -> None:
    linear = fitted([made(0, 1200), made(1, 1200)], 0.01)
    weight = np.abs(linear.weight[0]).reshape(SMALL.window, SMALL.channels)
    assert np.unravel_index(weight.argmax(), weight.shape) == (SMALL.past, SMALL.num_inputs + 3)
    net = network()
    net.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    torch.nn.init.zeros_(net.expression.weight)
    with torch.inference_mode():
        served = net(torch.from_numpy(made(2).rows)[None], zeros(), zeros()).expression[0, :, 0].numpy()
    assert np.corrcoef(served, made(2).expression[SMALL.past : -SMALL.ahead, 0])[0, 1] > 0.7


@pytest.mark.parametrize(("heard", "columns"), [("mfcc", slice(44, 65)), ("phones", slice(44)), ("both", slice(65))])
def test_a_network_hears_its_columns_only(heard: SpeechInput, columns: slice) -> None:
    rows, config = np.random.default_rng(0).standard_normal((9, 4, 65)).astype(np.float32), HeadposeConfig(heard=heard)
    np.testing.assert_array_equal(input_channels(rows, config), rows[..., columns])
    assert config.num_inputs == rows[..., columns].shape[-1]


def test_sequences_seeded_with_length(space: ExpressionSpace) -> None:
    """Sequences are seeded and as long as asked for."""
    clips = in_memory([tracked(0), tracked(1)])
    config = HeadposeTrainingConfig(network=SMALL, batch_size=3, length=150)
    linear = fit_filter(clips, space, config)
    sampler = HeadposeSampler(clips, space, linear, config)
    drawn = sampler.draw(np.random.default_rng(3))
    assert drawn.window.shape == (3, 150 + SMALL.window - 1, 4, SMALL.num_inputs)
    assert drawn.pose.shape == (3, 150, 6)
    np.testing.assert_array_equal(drawn.window, sampler.draw(np.random.default_rng(3)).window)
    # The frame that a step is about lies `past` frames into its window.
    every = [prepare(clip, space, pose_spread(in_memory([clip])), SMALL) for clip in clips]
    heard, expression = (np.concatenate([getattr(clip, name) for clip in every]) for name in ("rows", "expression"))
    place = int((heard == drawn.window[0, SMALL.past + 10]).all(axis=(1, 2)).argmax())
    np.testing.assert_array_equal(drawn.expression[0, 10], expression[place])


def test_targets_in_speaker_spread(space: ExpressionSpace) -> None:
    """Targets are about the clip's mean in units of the speaker's spread."""
    clip = tracked(0)
    each = prepare(clip, space, pose_spread(in_memory([clip])), SMALL)
    np.testing.assert_allclose(each.pose.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose((each.pose**2).mean(axis=0), 1.0, rtol=0.02)
    assert np.corrcoef(each.pose[:, 1], clip_poses(clip)[:, 1])[0, 1] == pytest.approx(1.0)


def test_still_head_has_spread() -> None:
    """A head that never moves has a spread to divide by."""
    still = tracked(0)
    still.poses[:] = still.poses[0]
    assert (pose_spread(in_memory([still])) > 0.0).all()


def truth(frames: int = 6) -> HeadposeBatch[Tensor]:
    expression, pose = torch.randn(2, frames, 24), torch.randn(2, frames, 6)
    return HeadposeBatch(torch.zeros(2, frames, 4, SMALL.num_inputs), expression, pose, torch.ones(2, frames))


def test_losses_match_equation_2() -> None:
    """The losses are those of equation 2 with its weights."""
    batch = truth()
    losses = headpose_loss(batch.expression + 1.0, batch.pose + 2.0, batch, HeadposeLossWeights())
    assert float(losses.expression) == pytest.approx(1.0, rel=1e-5)
    assert float(losses.pose) == pytest.approx(4.0, rel=1e-5)
    assert float(losses.pose_step) == pytest.approx(float((batch.pose.diff(dim=1) ** 2).mean()), rel=1e-4)
    assert float(losses.expression_step) == pytest.approx(float((batch.expression.diff(dim=1) ** 2).mean()), rel=1e-4)
    expected = 1.0 + 0.2 * 4.0 + 0.01 * float(losses.pose_step) + 0.0001 * float(losses.expression_step)
    assert float(losses.total) == pytest.approx(expected, rel=1e-5)


def test_frames_without_a_face_cost_nothing() -> None:
    batch = truth()
    masked = batch._replace(usable=torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]]).expand(2, -1))
    first, second = (
        float(headpose_loss(batch.expression + error, batch.pose + error, masked, HeadposeLossWeights()).total)
        for error in (torch.ones(6, 1), torch.tensor([[1.0], [1.0], [99.0], [1.0], [1.0], [1.0]]))
    )
    assert first == pytest.approx(second, rel=1e-5)
