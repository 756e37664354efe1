from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from services.render.networks.perceptual import PerceptualConfig, PerceptualNetwork
from services.render.renderers.headpose.identity_memory import IdentityMemory, MemoryConfig, SpatialFeatures

CONFIG = MemoryConfig(items=3, spatial_size=2, identity_size=2, threshold=0.9, margin=0.2, neighbours=3)
RIGHT, UP, LEFT = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])
ANNA, BEN = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def filled(*pairs: tuple[torch.Tensor, torch.Tensor]) -> IdentityMemory:
    memory = IdentityMemory(CONFIG)
    for spatial, identity in pairs:
        memory.update(spatial[None], identity[None])
    return memory


def recalled(memory: IdentityMemory, *queries: torch.Tensor) -> torch.Tensor:
    return memory.recall(torch.stack(queries)[None], torch.zeros(1, 0, 2), torch.zeros(1, 0, 2))[0]


def test_the_nearest_spatial_feature_gives_its_identity() -> None:
    memory = filled((RIGHT, ANNA), (UP, BEN))
    near_right = F.normalize(torch.tensor([1.0, 0.3]), dim=0)
    assert torch.equal(recalled(memory, near_right, UP), torch.stack([ANNA, BEN]))


def test_empty_items_are_never_found_even_if_all_others_are_opposite() -> None:
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


def test_an_actors_items_stand_beside_those_of_the_memory() -> None:
    memory = filled((RIGHT, ANNA))
    query = torch.stack([UP, UP])[:, None]
    own = torch.stack([UP, torch.zeros(2)])[:, None]
    found = memory.recall(query, own, torch.stack([BEN, BEN])[:, None])
    assert torch.equal(found[:, 0], torch.stack([BEN, ANNA]))


def test_the_triplet_loss_is_that_of_the_definition() -> None:
    memory = filled((RIGHT, ANNA), (UP, BEN))
    query = F.normalize(torch.tensor([[0.6, 0.8]]), dim=1).requires_grad_(True)
    # Nearest is Ben's item (0.8), Anna's is at 0.6.
    as_anna, as_ben = (memory.triplet_loss(query, who[None]) for who in (ANNA, BEN))
    assert float(as_anna.detach()) == pytest.approx(0.8 - 0.6 + 0.2, abs=1e-6)
    assert float(as_ben.detach()) == pytest.approx(0.0, abs=1e-6)
    torch.autograd.backward(as_anna)
    assert query.grad is not None
    assert torch.allclose(query.grad, (UP - RIGHT)[None])


def test_without_a_positive_or_a_negative_item_there_is_no_loss() -> None:
    query = RIGHT[None].clone().requires_grad_(True)
    assert float(IdentityMemory(CONFIG).triplet_loss(query, ANNA[None]).detach()) == 0.0
    assert float(filled((UP, BEN)).triplet_loss(query, ANNA[None]).detach()) == 0.0
    assert float(filled((UP, ANNA)).triplet_loss(query, ANNA[None]).detach()) == 0.0


def test_spatial_features_are_unit_vectors_whose_base_is_the_perceptual_network() -> None:
    torch.manual_seed(1)
    perceptual = PerceptualNetwork(PerceptualConfig(widths=(4, 4, 6, 8)))
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
