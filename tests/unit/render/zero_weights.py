"""Layers that begin with zero weights, made to have an effect in tests."""

from __future__ import annotations

from torch import nn


def fill_zero_weights(network: nn.Module) -> None:
    """Draw small weights for the layers whose weights are all zero, so that these layers change what the network answers."""
    for name, value in network.named_parameters():
        if name.endswith("weight") and not value.any():
            nn.init.normal_(value, std=0.05)
