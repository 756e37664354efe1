"""The network: two branches on top of a filter."""

from __future__ import annotations

import torch

from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.inputs import WINDOW, WINDOW_PAST
from services.motion.predictors.everyone.network import (
    FILTER_AHEAD,
    FILTER_PAST,
    FILTER_ROWS,
    FILTER_WINDOW,
    EveryoneConfig,
    EveryoneNetwork,
    FilterAlone,
)

CONFIG = EveryoneConfig(num_expression=3, channels=8, bank_channels=4, conv_layers=1, attention_layers=1, heads=2, share=0.5)


def made() -> EveryoneNetwork:
    torch.manual_seed(1)
    network = EveryoneNetwork(CONFIG)
    weight = torch.randn(3, FILTER_WINDOW * FILTER_ROWS * NUM_CONTENT)
    network.set_filter(0.01 * weight, torch.tensor([0.1, 0.2, 0.3]))
    return network.eval()


def stretch() -> torch.Tensor:
    return torch.randn(2, FILTER_PAST + WINDOW + FILTER_AHEAD, 4, NUM_CONTENT, generator=torch.Generator().manual_seed(2))


def test_what_is_trained_is_what_is_served() -> None:
    network, content = made(), stretch()
    window = content[:, FILTER_PAST : FILTER_PAST + WINDOW]
    with torch.inference_mode():
        filtered, branches = network.filtered(content), network.branches_of(content)
        torch.testing.assert_close(FilterAlone(network)(window), filtered[:, WINDOW_PAST])
        served = filtered + CONFIG.share * torch.stack(branches).mean(dim=0)
        torch.testing.assert_close(network(window), served[:, WINDOW_PAST])
    assert [branch.shape for branch in branches] == [(2, WINDOW, 3)] * 2


def test_the_network_begins_near_its_filter_and_leaves_the_filter_as_it_is() -> None:
    network, content = made(), stretch()
    with torch.inference_mode():
        assert max(float(branch.abs().mean()) for branch in network.branches_of(content)) < 0.2
    assert not any(value.requires_grad for value in network.filter.parameters())


def test_each_branch_hears_the_frames_before_and_after() -> None:
    network = made()
    for branch in network.branches:
        window = stretch()[:1, FILTER_PAST : FILTER_PAST + WINDOW].clone().requires_grad_(True)
        branch(window)[:, WINDOW_PAST].abs().sum().backward()
        assert window.grad is not None
        heard = window.grad.abs().sum(dim=(0, 2, 3)) > 0
        assert heard[WINDOW_PAST - 4 : WINDOW_PAST + 5].all()
    assert heard.all()  # attention hears the whole window
