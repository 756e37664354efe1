from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.networks.unet import FilmConv
from services.render.networks.weights import save_weights
from services.render.renderers.headpose.network import (
    HeadposeConfig,
    HeadposeNetwork,
    IdentityMemory,
    MemoryConfig,
    SpatialFeatures,
    load,
    refined,
)
from services.render.renderers.headpose.renderer import PICTURE_CHANNELS, RENDERED, RENDERED_BEFORE

MEMORY_CONFIG = MemoryConfig(items=3, spatial_size=2, identity_size=2, threshold=0.9, margin=0.2, neighbours=3)
RIGHT, UP, LEFT = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])
ANNA, BEN = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
CONFIG = HeadposeConfig(
    widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), items=4, actor_items=2, identity_size=3, spatial_size=5, spatial_widths=(4, 4, 4, 4)
)


def filled(*pairs: tuple[torch.Tensor, torch.Tensor]) -> IdentityMemory:
    memory = IdentityMemory(MEMORY_CONFIG)
    for spatial, identity in pairs:
        memory.update(spatial[None], identity[None])
    return memory


def recalled(memory: IdentityMemory, *queries: torch.Tensor) -> torch.Tensor:
    return memory.recall(torch.stack(queries)[None], torch.zeros(1, 0, 2), torch.zeros(1, 0, 2))[0]


def test_the_nearest_spatial_feature_gives_its_identity() -> None:
    memory = filled((RIGHT, ANNA), (UP, BEN))
    near_right = F.normalize(torch.tensor([1.0, 0.3]), dim=0)
    assert torch.equal(recalled(memory, near_right, UP), torch.stack([ANNA, BEN]))


def test_empty_items_never_found() -> None:
    """Empty items are never found even if all others are opposite."""
    memory = filled((RIGHT, ANNA))
    assert memory.num_present() == 1
    assert torch.equal(recalled(memory, LEFT)[0], ANNA)


def test_the_same_person_updates_the_nearest_item() -> None:
    memory = filled((RIGHT, ANNA))
    almost_anna = F.normalize(torch.tensor([1.0, 0.1]), dim=0)
    memory.update(UP[None], almost_anna[None])
    assert memory.num_present() == 1
    item = int(memory.spatial.norm(dim=1).argmax())
    assert torch.allclose(memory.spatial[item], torch.full((2,), 0.5**0.5))
    assert torch.allclose(memory.identity[item], F.normalize(ANNA + almost_anna, dim=0))
    assert memory.age[item] == 0


def test_another_person_replaces_the_item_left_alone_longest() -> None:
    memory = filled((RIGHT, ANNA), (UP, BEN), (LEFT, ANNA))
    first, second, third = (int((memory.spatial @ place).argmax()) for place in (RIGHT, UP, LEFT))
    assert sorted((first, second, third)) == [0, 1, 2]
    memory.update(RIGHT[None], ANNA[None])
    down = -UP
    memory.update(down[None], F.normalize(-ANNA - BEN, dim=0)[None])
    assert torch.equal(memory.spatial[second], down)
    assert torch.equal(memory.spatial[first], RIGHT)
    assert torch.equal(memory.age, torch.tensor([1.0, 0.0, 2.0])[torch.argsort(torch.tensor([first, second, third]))])


def test_actor_items_extend_memory() -> None:
    """An actor's items stand beside those of the memory."""
    memory = filled((RIGHT, ANNA))
    query = torch.stack([UP, UP])[:, None]
    own = torch.stack([UP, torch.zeros(2)])[:, None]
    found = memory.recall(query, own, torch.stack([BEN, BEN])[:, None])
    assert torch.equal(found[:, 0], torch.stack([BEN, ANNA]))


def test_spatial_features_are_unit_vectors() -> None:
    """Spatial features are unit vectors whose base is the perceptual network."""
    torch.manual_seed(1)
    perceptual = PerceptualNetwork(PerceptualConfig(widths=(4, 6, 8)))
    spatial = SpatialFeatures(perceptual.config, 5)
    spatial.load_base(perceptual)
    frames = torch.rand(3, 3, 160, 160)
    made = spatial(frames)
    assert made.shape == (3, 5)
    assert np.allclose(made.detach().norm(dim=1), 1.0, atol=1e-5)
    stages = perceptual.features(F.avg_pool2d(frames, 2))
    pooled = torch.cat([stage.mean(dim=(2, 3)) for stage in stages[-2:]], dim=1)
    assert torch.allclose(made, F.normalize(pooled @ spatial.weight.T, dim=1), atol=1e-5)
    torch.autograd.backward(made.sum())
    assert spatial.weight.grad is not None
    assert all(value.grad is None for value in spatial.base.parameters())


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


def test_equation_3_and_difference(network: HeadposeNetwork) -> None:
    """Equation 3 holds, and the difference leaves the network."""
    given, state = pictures(2), network.default_state().expand(2, -1)
    masks = network.masks(given, state[:, : network.film_size], network.identity_of(given, state))
    assert masks.colour.shape == (2, 3, 160, 160)
    assert masks.attention.shape == (2, 1, 160, 160)
    assert 0.0 <= float(masks.attention.min()) < float(masks.attention.max()) <= 1.0
    rendered = given[:, RENDERED]
    expected = masks.attention * rendered + (1.0 - masks.attention) * masks.colour
    assert torch.allclose(refined(rendered, masks), expected)
    assert torch.allclose(network(given, state), expected - rendered, atol=1e-6)


def test_state_layout(network: HeadposeNetwork) -> None:
    """The state is scales and shifts then the actor's items."""
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


def test_weights_come_back_with_the_memory(network: HeadposeNetwork, tmp_path: Path) -> None:
    save_weights(tmp_path / "headpose.safetensors", network, CONFIG.to_metadata())
    again = load(tmp_path / "headpose.safetensors")
    assert again.config == CONFIG
    assert again.memory.num_present() == network.memory.num_present() > 1
    assert torch.allclose(again.memory.identity, network.memory.identity, atol=1e-3)
