from __future__ import annotations

import numpy as np
import torch

from research.methods.everyone.render import pair_of
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import MouthBank
from services.common.face.neural_texture import sample
from services.render.renderers.everyone.personalize import (
    TexturedWindow,
    actor_windows,
    bank_texture,
    composed_frames,
    first_texture,
    gathered,
    sampled,
    stacked,
    textured_windows,
)
from tests.unit.render.renderers.everyone.person import speaking, surface


def test_first_texture_has_no_zero(bank: MouthBank) -> None:
    """The first texture shows the frames and no texel is zero."""
    drawn = surface()
    uv = drawn.uv_of(drawn.expression_of(bank.mouth[0]), HeadPose(1.0, np.eye(3), np.zeros(3)))
    texture = first_texture([(bank.boxes[0], uv)], 0)
    assert texture.shape == (256, 256, 16)
    assert texture.dtype == np.uint8
    assert texture.min() >= 1
    face = uv[..., 0] >= 0.0
    difference = np.abs(sample(texture, uv)[face][:, :3] * 255.0 - bank.boxes[0][face])
    assert np.median(difference) < 4.0


def test_other_channels_are_seeded_noise(bank: MouthBank) -> None:
    """Channels that do not resemble RGB are small noise of the seed."""
    drawn = surface()
    uv = drawn.uv_of(drawn.expression_of(bank.mouth[0]), HeadPose(1.0, np.eye(3), np.zeros(3)))
    one, again, other = (first_texture([(bank.boxes[0], uv)], seed) for seed in (0, 0, 1))
    assert one.tobytes() == again.tobytes()
    assert np.array_equal(one[..., :3], other[..., :3])
    assert not np.array_equal(one[..., 3:], other[..., 3:])
    assert abs(float(one[..., 3:].mean()) - 128.0) < 1.0
    assert float(one[..., 3:].std()) < 4.0


def test_unseen_texels_take_surroundings() -> None:
    """Texels that no frame shows get the colours around them."""
    uv = np.full((160, 160, 2), -1.0, np.float32)
    rows, columns = np.mgrid[40:120, 40:120]
    uv[40:120, 40:120] = np.dstack([columns, rows]).astype(np.float32) / 320.0 + 0.1
    texture = first_texture([(np.full((160, 160, 3), (200, 100, 50), np.uint8), uv)], 0)
    assert np.abs(texture[:200, :, :3].astype(int) - (200, 100, 50)).max() <= 2


def test_gathered_features_are_those_of_grid_sample() -> None:
    """A GPU gathers the features and gradients that a processor samples, inside of the texture, at its border and outside."""
    source = torch.Generator().manual_seed(0)
    texture = torch.rand(16, 32, 32, generator=source, requires_grad=True)
    uv = torch.rand(1, 1, 40, 40, 2, generator=source) * 1.1
    uv[0, 0, 0, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.5]])
    expected = sampled([texture], uv)[0, 0].flatten(1).T
    found = gathered(texture, uv.reshape(-1, 2))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6)
    weights = torch.rand(expected.shape, generator=source)
    gradients = [torch.autograd.grad((features * weights).sum(), texture)[0] for features in (expected, found)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.0, atol=1e-5)


def test_learning_inputs_are_those_of_serving(bank: MouthBank) -> None:
    """A texture that learns gives the network the pictures that serving makes of the texture's bytes."""
    windows = actor_windows(speaking(bank), surface(), 2, 0)
    # Other light than the footage's, which the frames then get.
    texture = np.clip(bank_texture(bank, surface(), 0).astype(int) - 30, 1, 255).astype(np.uint8)
    learned = torch.from_numpy(texture).permute(2, 0, 1).float() / 255.0
    seen = textured_windows(stacked(windows), [learned, learned], generator=torch.Generator().manual_seed(0))
    for pictures, window in zip(seen.pictures, windows, strict=True):
        served = pair_of(window, texture).picture
        difference = np.abs(pictures.permute(1, 2, 0).numpy() * 255.0 - served)
        assert difference.mean() < 2.0
        assert np.percentile(difference, 99.0) < 10.0


def test_composed_frames_blend_by_mask() -> None:
    """The mask blends drawn frames into the footage, and weighs lips more than the rest of the mask."""
    source = torch.Generator().manual_seed(0)
    bases, residuals, targets = torch.rand(3, 2, 3, 3, 24, 40, generator=source)
    masks = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1, 1).expand(2, 3, 1, 24, 40)
    lips = torch.zeros(2, 1, 24, 40)
    lips[1] = 1.0
    window = TexturedWindow(torch.empty(0), bases, targets, masks, torch.tensor(0.0))
    made = composed_frames(bases, residuals, window, lips)
    drawn = bases + residuals
    expected = torch.stack([targets[:, 0], (targets + drawn)[:, 1] / 2.0, drawn[:, 2]], dim=1)
    torch.testing.assert_close(made.pictures, expected.flatten(0, 1))
    torch.testing.assert_close(made.weights[:, 0, 12, 20], torch.tensor([0.0, 4.0, 8.0, 0.0, 5.0, 10.0]))
