"""The training of the predictor of `headpose` on made-up clips, and its export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from services.motion.export_head_motion import HeadMotionExportSpec, export
from services.motion.features import content_rows, sync_rows
from services.motion.head_motion_model import HeadMotionModel
from services.motion.models import MotionModels
from services.motion.networks.audio_to_head_motion import (
    CHANNELS,
    NUM_HEARD,
    AudioToHeadMotionConfig,
    AudioToHeadMotionNetwork,
    HeadMotionOutput,
)
from services.motion.train.clips import TrainingClip, shifted
from services.motion.train.head_motion import HeadMotionTraining, head_motion_loss, heard_channels
from services.motion.train.head_motion_constants import head_motion_constants
from services.motion.train.head_motion_data import (
    HeadMotionBatch,
    HeadMotionClip,
    HeadMotionSampler,
    clip_poses,
    fit_filter,
    prepare,
)
from tests.unit.motion.synthesised import head_poses, mouths, random_features

SMALL = AudioToHeadMotionConfig(num_expression=24, past=2, ahead=1, projection=8, encoded=8, hidden=8, dropout=0.0)


def made(speaker: str, seed: int, num_frames: int = 120) -> HeadMotionClip:
    """Expression that follows one channel of the frame itself."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_frames, 4, NUM_HEARD)).astype(np.float32)
    expression = np.repeat(rows[:, 1, 3:4], SMALL.num_expression, axis=1)
    pose = rng.standard_normal((num_frames, 6)).astype(np.float32)
    return HeadMotionClip(speaker, rows, expression, pose, np.ones(num_frames, np.bool_))


def tracked(seed: int, num_frames: int = 80, use: str = "train") -> TrainingClip:
    features = random_features(num_frames, seed)
    opening = 5.0 + 4.0 * np.sin(np.arange(num_frames) * 0.7 + seed)
    return TrainingClip(
        f"clip{seed}", use, f"speaker{seed}", "", mouths(opening.astype(np.float32)), np.ones(num_frames, np.bool_), features,
        content_rows(features), sync_rows(features), head_poses(num_frames, seed),
    )  # fmt: skip


def network(seed: int = 0) -> AudioToHeadMotionNetwork:
    torch.manual_seed(seed)
    return AudioToHeadMotionNetwork(SMALL).eval()


def zeros(count: int = 1) -> torch.Tensor:
    return torch.zeros(count, SMALL.hidden)


def test_steps_one_by_one_are_the_whole_sequence() -> None:
    net, rows = network(), torch.randn(1, 20, 4, NUM_HEARD)
    with torch.inference_mode():
        whole = net(rows, zeros(), zeros())
        h, c = zeros(), zeros()
        for step in range(20 - SMALL.window + 1):
            one = net(rows[:, step : step + SMALL.window], h, c)
            h, c = one.h, one.c
            torch.testing.assert_close(one.expression[:, 0], whole.expression[:, step], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.pose[:, 0], whole.pose[:, step], rtol=1e-4, atol=1e-5)


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


def truth(frames: int = 6) -> HeadMotionBatch:
    expression, pose = torch.randn(2, frames, 24), torch.randn(2, frames, 6)
    return HeadMotionBatch(torch.zeros(2, frames, 4, NUM_HEARD), expression, pose, torch.ones(2, frames))


def test_the_losses_are_those_of_equation_2_with_its_weights() -> None:
    batch, config = truth(), HeadMotionTraining()
    predicted = HeadMotionOutput(batch.expression + 1.0, batch.pose + 2.0, zeros(2), zeros(2))
    losses = head_motion_loss(predicted, batch, config)
    assert float(losses.expression) == pytest.approx(1.0, rel=1e-5)
    assert float(losses.pose) == pytest.approx(4.0, rel=1e-5)
    assert float(losses.pose_step) == pytest.approx(float((batch.pose.diff(dim=1) ** 2).mean()), rel=1e-4)
    assert float(losses.expression_step) == pytest.approx(float((batch.expression.diff(dim=1) ** 2).mean()), rel=1e-4)
    expected = 1.0 + 0.2 * 4.0 + 0.01 * float(losses.pose_step) + 0.0001 * float(losses.expression_step)
    assert float(losses.total) == pytest.approx(expected, rel=1e-5)


def test_frames_without_a_face_cost_nothing() -> None:
    batch, config = truth(), HeadMotionTraining()
    usable = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]]).expand(2, -1)
    masked = batch._replace(usable=usable)
    first, second = (
        HeadMotionOutput(batch.expression + e, batch.pose + e, zeros(2), zeros(2))
        for e in (torch.ones(6, 1), torch.tensor([[1.0], [1.0], [99.0], [1.0], [1.0], [1.0]]))
    )
    assert float(head_motion_loss(first, masked, config).total) == pytest.approx(
        float(head_motion_loss(second, masked, config).total), rel=1e-5
    )


def test_sequences_are_seeded_and_as_long_as_asked_for() -> None:
    sampler = HeadMotionSampler([made("a", 0), made("b", 1)], {"a": 1.0, "b": 1.0}, SMALL)
    drawn = sampler.draw(np.random.default_rng(3), 3, 150)
    assert drawn.window.shape == (3, 150 + SMALL.window - 1, 4, NUM_HEARD)
    assert drawn.pose.shape == (3, 150, 6)
    # The frame that a step is about lies `past` frames into its window.
    torch.testing.assert_close(drawn.expression[:, :, 0], drawn.window[:, SMALL.past : SMALL.past + 150, 1, 3])
    torch.testing.assert_close(drawn.window, sampler.draw(np.random.default_rng(3), 3, 150).window)


def test_targets_are_about_the_clips_mean_in_units_of_the_speakers_spread(models: MotionModels) -> None:
    clips = [tracked(0), tracked(1)]
    prepared = prepare(clips, models.basis, models.head_motion.basis)
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


@pytest.mark.filterwarnings("ignore")  # of the exporter, which warns of itself and of tracing
def test_what_is_exported_is_what_was_trained(models: MotionModels, tmp_path: Path) -> None:
    net = network()
    clips = [tracked(0), tracked(1)]

    @torch.no_grad()
    def raw(features: object) -> HeadMotionOutput:
        answer: HeadMotionOutput = net(torch.randn(1, 80 + SMALL.window - 1, 4, NUM_HEARD), zeros(), zeros())
        return answer

    kept = {
        "config": {"network": {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}},
        "state": net.state_dict(),
        "scores": {},
        "step": 1,
        "basis": models.head_motion.basis,
        "face_model": "x",
        "num_expression": 64,
        "constants": head_motion_constants(clips, models.basis, raw),
    }
    torch.save(kept, tmp_path / "best.pt")
    report = export(tmp_path, tmp_path / "out", HeadMotionExportSpec(parity_steps=5))
    model = HeadMotionModel(tmp_path / "out")
    assert report["parity"] < 1e-4
    assert (model.past, model.ahead, model.hidden) == (2, 1, 8)
    assert (model.general.quantiles[:, -1] > 0.0).all()
    with pytest.raises(RuntimeError, match="refused"):
        export(tmp_path, tmp_path / "none", HeadMotionExportSpec(parity_steps=2, tolerance=-1.0))
    assert not (tmp_path / "none").exists()
