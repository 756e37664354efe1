"""Textures of the people of a training: parameters, of which a step moves only those that its batch shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from services.common.array_types import UInt8
from services.render.renderers.everyone.learned_textures import LOWEST, as_parameter
from services.training.device import Device


class PersonTextures(nn.Module):
    """One texture for each person, float [16, 256, 256] in 0..1. They are never part of the files that a run writes for serving.

    Args:
        firsts: uint8 [256, 256, 16] each, first textures.
    """

    def __init__(self, firsts: Sequence[UInt8]) -> None:
        super().__init__()
        self.people = nn.ParameterList(as_parameter(texture) for texture in firsts)

    def exchange(self, device: Device) -> None:
        """Average the gradients over all processes. People whom no process has shown have none."""
        if device.num_processes == 1:
            return
        place = device.torch_device
        shown = torch.tensor([[texture.grad is not None for texture in self.people]], dtype=torch.float32, device=place)
        anywhere = device.gathered(shown).sum(dim=0) > 0
        for texture, is_shown in zip(self.people, anywhere.tolist(), strict=True):
            if is_shown:
                own = torch.zeros_like(texture) if texture.grad is None else texture.grad
                texture.grad = device.gathered(own[None]).mean(dim=0)

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring the textures that have a gradient back to their range."""
        for texture in self.people:
            if texture.grad is not None:
                texture.clamp_(LOWEST, 1.0)

    def of(self, number: int) -> Tensor:
        """Return the texture of a person."""
        texture: Tensor = self.people[number]
        return texture
