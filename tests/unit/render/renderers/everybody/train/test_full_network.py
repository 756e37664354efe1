from __future__ import annotations

import torch

from services.render.renderers.everybody.train.full_network import (
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
