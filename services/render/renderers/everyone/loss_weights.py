"""Weights of Eq. 1."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneWeights:
    """Weights of Eq. 1: the paper has lambda_1 = 10, lambda_VGG = 10, lambda_reg = 5, lambda_adv = 1.

    The paper's L_VGG is in units of VGG's features. Here the features of each stage have the mean 1 (services/render/losses.py), so
    a weight of 2, over features and Gram matrices, gives gradients as large as those of the other losses.

    Attributes:
        reconstruction: weight of L1, with weights by region.
        perceptual: weight of L_VGG, the mean over features and Gram matrices.
        texture: weight of L_reg, which makes the first three channels resemble RGB.
        adversarial: weight of the LSGAN loss.
    """

    reconstruction: float = 10.0
    perceptual: float = 2.0
    texture: float = 5.0
    adversarial: float = 1.0
