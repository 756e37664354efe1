from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from services.render.networks.unet import FilmConv
from services.render.networks.weights import save_weights
from services.render.renderers.headpose.inputs import PICTURE_CHANNELS, RENDERED, RENDERED_BEFORE
from services.render.renderers.headpose.network import (
    HeadposeConfig,
    HeadposeNetwork,
    Masks,
    attention_loss,
    attention_smoothness_loss,
    load,
    refined,
)

CONFIG = HeadposeConfig(
    widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), items=4, actor_items=2, identity_size=3, spatial_size=5, spatial_widths=(4, 4, 4, 4)
)


@pytest.fixture(scope="module")
def network() -> HeadposeNetwork:
    """Random weights everywhere, the memory filled."""
    torch.manual_seed(2)
    made = HeadposeNetwork(CONFIG)
    for value in made.parameters():
        if value.ndim > 1 and not value.any():
            torch.nn.init.normal_(value, std=0.3)
    made.memory.update(
        torch.nn.functional.normalize(torch.randn(4, 5), dim=1), torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    )
    return made.requires_grad_(False).eval()


def pictures(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, PICTURE_CHANNELS, 160, 160), np.float32))


def test_eq_3_holds_and_what_leaves_is_the_difference(network: HeadposeNetwork) -> None:
    given, state = pictures(2), network.default_state().expand(2, -1)
    masks = network.masks(given, state[:, : network.film_size], network.identity_of(given, state))
    assert masks.colour.shape == (2, 3, 160, 160)
    assert masks.attention.shape == (2, 1, 160, 160)
    assert 0.0 <= float(masks.attention.min()) < float(masks.attention.max()) <= 1.0
    rendered = given[:, RENDERED]
    expected = masks.attention * rendered + (1.0 - masks.attention) * masks.colour
    assert torch.allclose(refined(rendered, masks), expected)
    assert torch.allclose(network(given, state), expected - rendered, atol=1e-6)


def test_the_state_is_scales_and_shifts_then_the_actors_items(network: HeadposeNetwork) -> None:
    assert network.state_size == network.film_size + 2 * (5 + 3)
    assert network.default_state().shape == (network.state_size,)
    given = pictures(1)
    frames = torch.cat([given[:, part] for part in (RENDERED, *RENDERED_BEFORE)])
    query = network.spatial(frames)
    own = torch.zeros(2, 8)
    # The actor's item lies where frame t is: it is found at least there.
    own[0] = torch.cat([query[0], torch.tensor([9.0, 0.0, 0.0])])
    state = torch.cat([torch.zeros(network.film_size), own.flatten()])[None]
    likeness = torch.cat([network.memory.spatial, own[:1, :5]]) @ query.T
    values = torch.cat([network.memory.identity, own[:1, 5:]])[likeness.argmax(dim=0)]
    assert torch.allclose(network.identity_of(given, state), values.mean(dim=0, keepdim=True), atol=1e-5)
    assert float(network.identity_of(given, state)[0, 0]) > 2.5


def test_identity_changes_the_picture(network: HeadposeNetwork) -> None:
    given, film = pictures(1), torch.zeros(1, network.film_size)
    one, other = (network.masks(given, film, torch.tensor([who])) for who in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    assert (one.colour - other.colour).abs().max() > 1e-3
    assert (one.attention - other.attention).abs().max() > 1e-4


def test_the_lowest_levels_are_adain() -> None:
    torch.manual_seed(0)
    layer = FilmConv(3, 4, linear=True, normalise=True)
    x = torch.randn(2, 3, 12, 12) * 5.0 + 3.0
    state = torch.randn(2, 8)
    made = layer(x, state)
    assert torch.allclose(made.mean(dim=(2, 3)), state[:, 4:], atol=1e-4)
    assert torch.allclose(made.std(dim=(2, 3), unbiased=False), (1.0 + state[:, :4]).abs(), atol=1e-3)


def test_attention_losses_look_inside_the_mask_only() -> None:
    inside = torch.zeros(1, 1, 4, 4)
    inside[..., :2, :] = 1.0
    attention = torch.zeros(1, 1, 4, 4)
    attention[..., 0, :] = 1.0
    attention[..., 3, ::2] = 1.0
    masks = Masks(torch.zeros(1, 3, 4, 4), attention)
    assert float(attention_loss(masks, inside)) == pytest.approx(4 / 8)
    # Four steps down from row 0 to row 1, none across.
    assert float(attention_smoothness_loss(masks, inside)) == pytest.approx(4 / 8)


def test_weights_come_back_with_the_memory(network: HeadposeNetwork, tmp_path: Path) -> None:
    save_weights(tmp_path / "headpose.safetensors", network, CONFIG.to_metadata())
    again = load(tmp_path / "headpose.safetensors")
    assert again.config == CONFIG
    assert again.memory.num_present() == network.memory.num_present() > 1
    assert torch.allclose(again.memory.identity, network.memory.identity, atol=1e-3)
