"""Trainer of the prior of `headpose`: Eq. 4 of the paper and the memory, in the units of services/render/losses.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from services.render.losses import adversarial_loss, compose, critic_view, detail_loss, discriminator_loss, reconstruction_loss
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.perceptual import PerceptualNetwork
from services.render.networks.tensors import to_tensor
from services.render.networks.weights import save_weights
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityFeatures
from services.render.renderers.headpose.inputs import DRAWN_WINDOW, RENDERED, RENDERED_BEFORE
from services.render.renderers.headpose.network import (
    WEIGHTS,
    HeadposeConfig,
    HeadposeNetwork,
    Masks,
    attention_loss,
    attention_smoothness_loss,
    refined,
)
from services.render.renderers.headpose.train.footage import DrawnBatch
from services.render.train.recipe import Recipe
from services.render.train.trainer import Drawn, Trainer


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeWeights:
    """Weights of Eq. 4, then of the added losses. The paper has 1 : 100 : 2 : 1e-5 in its units.

    With a heavier conditional discriminator and a lighter attention loss the generator soon hands the drawn face through, whose
    low-frequency albedo is smooth: A went from .28 to .74 within a hundred steps.
    """

    adversarial: float = 0.25
    reconstruction: float = 10.0
    attention: float = 0.4
    smoothness: float = 0.1
    perceptual: float = 1.0
    frame: float = 1.0
    detail: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeRecipe(Recipe):
    """How the committed prior was trained; see Recipe.

    Attributes:
        memory_learning_rate: learning rate of the spatial features' layer.
        embedding: digest of the identity embedding's file.
        network: shape of the network.
        weights: weights of the losses.
    """

    steps: int = 600
    warm_steps: int = 300
    warm_batch: int = 6
    batch: int = 5
    adversarial_learning_rate: float = 3e-4
    memory_learning_rate: float = 2e-3
    embedding: str = ""
    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    weights: HeadposeWeights = field(default_factory=HeadposeWeights)
    seed: int = 20269


@dataclass(frozen=True, slots=True, eq=False)
class HeadposeDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        masks: outputs of the generator.
        window: float [B, 9, h, w], the rendered frames, as far as discriminators see them.
    """

    masks: Masks
    window: Tensor


class HeadposeTrainer(Trainer[HeadposeRecipe, HeadposeNetwork, DrawnBatch, HeadposeDrawn]):
    """Trainer of generator and memory with a conditional discriminator and a discriminator of frames.

    Args:
        recipe: all settings.
        perceptual: network of the perceptual loss and of the memory's queries.
        identity: the identity embedding.
    """

    more_parts = ("memory_optimiser",)

    def __init__(self, recipe: HeadposeRecipe, perceptual: PerceptualNetwork, identity: IdentityFeatures) -> None:
        torch.manual_seed(recipe.seed)
        self._identity = identity
        network = HeadposeNetwork(recipe.network)
        network.spatial.load_base(perceptual)
        self._judge = PatchDiscriminator(3 * (DRAWN_WINDOW + 1))
        self._frame = PatchDiscriminator(3)
        super().__init__(recipe, network, {"judge": self._judge, "frame": self._frame}, perceptual.features)
        self.memory_optimiser = torch.optim.Adam([self.network.spatial.weight], recipe.memory_learning_rate)

    def _trained(self) -> list[nn.Parameter]:
        memory = {id(value) for value in self.network.spatial.parameters()}
        return [value for value in self.network.parameters() if id(value) not in memory]

    def _clipped(self) -> Iterable[nn.Parameter]:
        return [value for group in self.optimiser.param_groups for value in group["params"]]

    def _drawn(self, batch: DrawnBatch) -> HeadposeDrawn:
        inputs, targets = to_tensor(batch.pictures), to_tensor(batch.targets)
        report = self._memory_step(inputs, torch.from_numpy(self._identity.of(batch.targets)))
        identity = torch.from_numpy(self._identity.of(batch.others))
        with torch.autocast("cpu", torch.bfloat16):
            masks = self.network.masks(inputs, torch.zeros(len(inputs), self.network.film_size), identity)
        masks = Masks(masks.colour.float(), masks.attention.float())
        made = compose(inputs, refined(inputs[:, RENDERED], masks) - inputs[:, RENDERED], targets)
        window = critic_view(torch.cat([inputs[:, part] for part in (RENDERED, *RENDERED_BEFORE)], dim=1))
        return HeadposeDrawn(made, report, masks, window)

    def _memory_step(self, inputs: Tensor, identity: Tensor) -> dict[str, float]:
        """Do the memory's step (footnote 5) with pairs of the rendered frame's spatial and the filmed frame's identity feature."""
        network = self.network
        query = network.spatial(inputs[:, RENDERED])
        loss = network.memory.triplet_loss(query, identity)
        if loss.requires_grad:
            self.memory_optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.memory_optimiser.step()
        with torch.no_grad():
            query = network.spatial(inputs[:, RENDERED])
            empty = torch.zeros(len(query), 0, query.shape[1]), torch.zeros(len(query), 0, identity.shape[1])
            recalled = (network.memory.recall(query[:, None], *empty)[:, 0] * identity).sum(dim=1).mean()
        network.memory.update(query, identity)
        return {"triplet": float(loss.detach()), "recalled_likeness": float(recalled), "items": float(network.memory.num_present())}

    def _terms(self, drawn: HeadposeDrawn) -> dict[str, Tensor]:
        weights, made = self.recipe.weights, drawn.made
        return {
            "reconstruction": weights.reconstruction * reconstruction_loss(made),
            "attention": weights.attention * attention_loss(drawn.masks, made.mask),
            "smoothness": weights.smoothness * attention_smoothness_loss(drawn.masks, made.mask),
            "detail": weights.detail * detail_loss(made),
        }

    def _judged_terms(self, drawn: HeadposeDrawn, view: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "adversarial": weights.adversarial * adversarial_loss(self._judge(torch.cat([drawn.window, view], dim=1))),
            "frame": weights.frame * adversarial_loss(self._frame(view)),
        }

    def _after_descent(self, drawn: HeadposeDrawn) -> dict[str, float]:
        # The memory belongs to the spatial features as they are now, so neither memory nor features are averaged.
        self.average.spatial.load_state_dict(self.network.spatial.state_dict())
        self.average.memory.load_state_dict(self.network.memory.state_dict())
        return {"mean_attention": float(drawn.masks.attention.detach().mean())}

    def _judge_losses(self, drawn: HeadposeDrawn, view: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        filmed, made = (self._judge(torch.cat([drawn.window, seen], dim=1)) for seen in (wanted, view))
        return {
            "judge": discriminator_loss(filmed, made),
            "frame_judge": discriminator_loss(self._frame(wanted), self._frame(view)),
        }

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, out: Path) -> None:
        """Write `headpose.safetensors`."""
        facts = {**self.facts(), EMBEDDING: self._identity.sha256}
        save_weights(out / WEIGHTS, self.average, self.recipe.network.to_metadata(), **facts)
