from __future__ import annotations

import torch

from services.render.heatmaps import KEYS_AFTER, KEYS_BEFORE, WINDOW_CHANNELS
from services.render.networks.everybody import EverybodyConfig, EverybodyNetwork
from services.render.networks.everybody_full import (
    EverybodyFullConfig,
    EverybodyFullNetwork,
    WindowDiscriminator,
    WindowDiscriminatorConfig,
)

TABLE_7 = [
    (64, 192), (128, 96), (256, 48), (512, 24), (512, 12), (512, 6), (512, 3),
    (512, 6), (512, 12), (512, 24), (256, 48), (128, 96), (64, 192), (21, 384),
]  # fmt: skip
"""Channels and resolution of E1 to E7, D7 to D1."""
DECODER_INPUTS = [512, 1024, 1024, 1024, 512, 256, 128]
"""Channels that D7 to D1 see, skips included."""


def test_the_full_network_has_the_shapes_of_table_7() -> None:
    # On the meta device shapes are computed and nothing else.
    with torch.device("meta"):
        network = EverybodyFullNetwork(EverybodyFullConfig())
        made = network.levels(torch.zeros(1, 28, 384, 384))
    assert [tuple(level.shape[1:]) for level in made] == [(channels, side, side) for channels, side in TABLE_7]
    assert [layer.in_channels for layer in network.decoders] == DECODER_INPUTS  # type: ignore[union-attr]


def test_the_full_discriminator_has_the_shapes_of_table_8() -> None:
    with torch.device("meta"):
        judge = WindowDiscriminator(WindowDiscriminatorConfig())
        assert judge(torch.zeros(2, 21, 384, 384)).shape == (2, 7)
    assert [layer.out_channels for layer in judge.encoders] == [channels for channels, _ in TABLE_7[:7]]  # type: ignore[union-attr]


def test_a_small_table_7_computes_real_numbers() -> None:
    torch.manual_seed(0)
    network = EverybodyFullNetwork(EverybodyFullConfig(frames=2, widths=(4, 6, 8)))
    made = network(torch.rand(1, 8, 32, 32))
    assert made.shape == (1, 6, 32, 32)
    assert made.std() > 0


def test_the_served_network_has_one_to_two_million_parameters() -> None:
    with torch.device("meta"):
        network = EverybodyNetwork(EverybodyConfig())
    assert 1e6 < sum(parameter.numel() for parameter in network.parameters()) < 2e6


def test_it_begins_as_the_mean_of_the_key_pictures() -> None:
    torch.manual_seed(0)
    network = EverybodyNetwork(EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)))
    pictures = torch.rand(2, WINDOW_CHANNELS, 32, 32)
    made = pictures[:, KEYS_BEFORE] + network(pictures, network.default_state().expand(2, -1))
    keys = torch.stack([pictures[:, KEYS_BEFORE], *torch.split(pictures[:, KEYS_AFTER], 3, dim=1)])
    torch.testing.assert_close(made, keys.mean(dim=0))


def test_the_state_changes_the_picture_of_its_own_actor_only() -> None:
    torch.manual_seed(0)
    network = EverybodyNetwork(EverybodyConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1)))
    torch.nn.init.normal_(network.head.conv.weight, std=0.1)
    pictures = torch.rand(1, WINDOW_CHANNELS, 32, 32).expand(2, -1, -1, -1)
    states = torch.stack([network.default_state(), torch.randn(network.state_size) * 0.1])
    plain, other = network(pictures, states)
    torch.testing.assert_close(plain, network(pictures[:1], states[:1])[0])
    assert (plain - other).abs().max() > 1e-3
