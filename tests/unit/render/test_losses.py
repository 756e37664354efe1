from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from services.render.losses import (
    ComposedPictures,
    adversarial_loss,
    compose,
    discriminator_loss,
    discriminator_view,
    lip_neighbourhood,
    perceptual_loss,
    reconstruction_loss,
    total_variation_loss,
)


@pytest.fixture
def made() -> ComposedPictures:
    torch.manual_seed(0)
    inputs = torch.zeros(2, 9, 160, 160)
    inputs[:, 3:6] = 0.5
    inputs[:, 6, 40:120, 40:120] = 1.0
    inputs[:, 7, 60:80, 50:110] = 1.0
    return compose(inputs, torch.zeros(2, 3, 160, 160), torch.full((2, 3, 160, 160), 0.4))


def test_outside_the_mask_the_footage_stays(made: ComposedPictures) -> None:
    outside = made.mask.expand_as(made.pictures) == 0
    assert torch.equal(made.pictures[outside], made.target[outside])


def test_reconstruction_error_inside_mask(made: ComposedPictures) -> None:
    """Reconstruction is the mean absolute error inside the mask."""
    assert float(reconstruction_loss(made)) == pytest.approx(0.1, abs=1e-5)


def test_errors_on_the_lips_count_more(made: ComposedPictures) -> None:
    def loss_with_error_at(row: int) -> float:
        pictures = made.target.clone()
        pictures[:, :, row, 80] += 0.5
        return float(reconstruction_loss(made._replace(pictures=pictures)))

    assert loss_with_error_at(70) > 2.5 * loss_with_error_at(110)


def test_lips_spread_over_thirteen_pixels() -> None:
    """The neighbourhood is the mean over 13 x 13 px of lips that are wider by 6 px on all sides. Beyond the border are no lips."""
    torch.manual_seed(1)
    lips = (torch.rand(2, 1, 40, 50) > 0.99).float()
    expected = F.avg_pool2d(F.max_pool2d(lips, 13, 1, 6), 13, 1, 6)
    torch.testing.assert_close(lip_neighbourhood(lips), expected, rtol=0.0, atol=1e-6)


def test_variation_flat_and_step(made: ComposedPictures) -> None:
    """A flat picture has no variation and a step has."""
    assert float(total_variation_loss(made._replace(pictures=torch.full_like(made.pictures, 0.3)))) == 0.0
    assert float(total_variation_loss(made._replace(pictures=torch.rand_like(made.pictures)))) > 0.1


def test_sure_discriminator_losses() -> None:
    """A discriminator that is sure and right has no loss and the renderer has all."""
    real, fake = torch.ones(1, 1, 5, 5), torch.zeros(1, 1, 5, 5)
    assert float(discriminator_loss(real, fake)) == 0.0
    assert float(adversarial_loss(fake)) == 1.0
    assert float(adversarial_loss(real)) == 0.0


def test_perceptual_loss_compares_each_scale_alike() -> None:
    pictures, target = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    loss = perceptual_loss(lambda given: [given, 3.0 * given[..., :2, :2]], pictures, target)
    assert float(loss) == pytest.approx(2.0)


def test_critics_see_mouth_and_chin() -> None:
    assert discriminator_view(torch.zeros(1, 3, 160, 160)).shape == (1, 3, 112, 128)
