"""Tests of the losses of the renderer of `headpose`."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from research.methods.headpose.render import attention_loss, attention_smoothness_loss, triplet_loss
from services.render.renderers.headpose.network import IdentityMemory, Masks
from tests.unit.render.renderers.headpose.test_network import ANNA, BEN, MEMORY_CONFIG, RIGHT, UP, filled


def test_the_triplet_loss_is_that_of_the_definition() -> None:
    memory = filled((RIGHT, ANNA), (UP, BEN))
    query = F.normalize(torch.tensor([[0.6, 0.8]]), dim=1).requires_grad_(True)
    # Nearest is Ben's item (0.8), Anna's is at 0.6.
    as_anna, as_ben = (triplet_loss(memory, query, who[None]) for who in (ANNA, BEN))
    assert float(as_anna.detach()) == pytest.approx(0.8 - 0.6 + 0.2, abs=1e-6)
    assert float(as_ben.detach()) == pytest.approx(0.0, abs=1e-6)
    torch.autograd.backward(as_anna)
    assert query.grad is not None
    assert torch.allclose(query.grad, (UP - RIGHT)[None])


def test_no_pair_no_loss() -> None:
    """Without a positive or a negative item, there is no loss."""
    query = RIGHT[None].clone().requires_grad_(True)
    assert float(triplet_loss(IdentityMemory(MEMORY_CONFIG), query, ANNA[None]).detach()) == 0.0
    assert float(triplet_loss(filled((UP, BEN)), query, ANNA[None]).detach()) == 0.0
    assert float(triplet_loss(filled((UP, ANNA)), query, ANNA[None]).detach()) == 0.0


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
