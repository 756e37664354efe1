from __future__ import annotations

import torch

from research.methods.hetero.render import discriminator_outputs, feature_matching_loss
from services.render.losses import PatchDiscriminator


def test_scores_and_layer_features() -> None:
    """The scores are the discriminator's and features come from each layer."""
    torch.manual_seed(0)
    judge, pictures = PatchDiscriminator(3), torch.rand(2, 3, 48, 48)
    found = discriminator_outputs(judge, pictures)
    assert torch.equal(found.scores, judge(pictures))
    assert [feature.shape[1] for feature in found.features] == [32, 64, 96, 128]
    assert all(not layer._forward_hooks for layer in judge.layers)


def test_equal_pictures_match_and_different_ones_do_not() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(3)
    one, other = (discriminator_outputs(judge, torch.rand(1, 3, 48, 48)).features for _ in range(2))
    assert feature_matching_loss(one, one) == 0
    assert feature_matching_loss(one, other) > 0.1
