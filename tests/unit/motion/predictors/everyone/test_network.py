"""The network: two branches on top of a filter."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from services.motion.predictors.everyone.network import FILTER_AHEAD, FILTER_PAST, EveryoneConfig, EveryoneNetwork
from services.motion.predictors.everyone.predictor import WINDOW, WINDOW_PAST, num_channels
from services.motion.speech_states import NUM_STATES, SpeechInput

CONFIG = EveryoneConfig(num_expression=3, channels=8, bank_channels=4, conv_layers=1, attention_layers=1, heads=2, share=0.5)


def made(heard: SpeechInput = "states") -> EveryoneNetwork:
    torch.manual_seed(1)
    config = replace(CONFIG, heard=heard)
    network = EveryoneNetwork(config)
    network.set_filter(0.01 * torch.randn(3, config.filter_inputs), torch.tensor([0.1, 0.2, 0.3]))
    if heard != "phones":
        network.set_range(torch.full((NUM_STATES,), 0.5), torch.full((NUM_STATES,), 2.0))
    return network.eval()


def stretch(heard: SpeechInput = "states") -> torch.Tensor:
    frames = FILTER_PAST + WINDOW + FILTER_AHEAD
    return torch.randn(2, frames, num_channels(heard), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("heard", get_args(SpeechInput))
def test_what_is_trained_is_what_is_served(heard: SpeechInput) -> None:
    network, speech = made(heard), stretch(heard)
    window = speech[:, FILTER_PAST : FILTER_PAST + WINDOW]
    with torch.inference_mode():
        filtered, branches = network.filtered(speech), network.branches_of(speech)
        torch.testing.assert_close(network.filter_of(window), filtered[:, WINDOW_PAST])
        served = filtered + CONFIG.share * torch.stack(branches).mean(dim=0)
        torch.testing.assert_close(network(window), served[:, WINDOW_PAST])
    assert [branch.shape for branch in branches] == [(2, WINDOW, 3)] * 2


def test_starts_near_fixed_filter() -> None:
    """The network begins near its filter and leaves the filter as it is."""
    network, speech = made(), stretch()
    with torch.inference_mode():
        assert max(float(branch.abs().mean()) for branch in network.branches_of(speech)) < 0.2
    assert not any(value.requires_grad for value in network.filter.parameters())


def test_each_branch_hears_the_frames_before_and_after() -> None:
    network = made()
    for branch in network.branches:
        window = stretch()[:1, FILTER_PAST : FILTER_PAST + WINDOW].clone().requires_grad_(True)
        branch(window)[:, WINDOW_PAST].abs().sum().backward()
        assert window.grad is not None
        heard = window.grad.abs().sum(dim=(0, 2)) > 0
        assert heard[WINDOW_PAST - 4 : WINDOW_PAST + 5].all()
    assert heard.all()  # attention hears the whole window


def test_state_noise_only_in_training() -> None:
    """Noise on the states is heard in training only."""
    network, speech = made(), stretch()
    torch.manual_seed(3)
    assert torch.equal(network(speech[:, :WINDOW]), network(speech[:, :WINDOW]))
    network.train()
    network.branches.eval()  # no dropout
    first, again = (network.branches_of(speech)[0] for _ in range(2))
    assert not torch.equal(first, again)
    torch.testing.assert_close(network.filtered(speech), network.filtered(speech), rtol=0.0, atol=0.0)
