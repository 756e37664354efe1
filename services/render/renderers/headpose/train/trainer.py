"""Trainer of the prior of `headpose`: Eq. 4 of the paper and the memory, in the units of services/render/losses.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from services.common.array_types import UInt8
from services.common.store.exported_network import write_whole
from services.render.losses import adversarial_loss, compose, critic_view, detail_loss, discriminator_loss, reconstruction_loss
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.perceptual import PerceptualNetwork
from services.render.networks.weights import save_weights
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityFeatures
from services.render.renderers.headpose.inputs import DRAWN_WINDOW, RENDERED, RENDERED_BEFORE
from services.render.renderers.headpose.network import (
    WEIGHTS,
    HeadposeNetwork,
    Masks,
    attention_loss,
    attention_smoothness_loss,
    refined,
)
from services.render.renderers.headpose.train.footage import DrawnBatch
from services.render.renderers.headpose.train.recipes import HeadposeRecipe
from services.render.train.trainer import Drawn, Trainer, TrainerInputs, add_mean


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

    As footnote 5 says, memory and generator take turns: first the threshold triplet loss and the memory's items, then the GAN.

    Args:
        recipe: all settings.
        inputs: device, source of batches, held-out clips and features.
        perceptual: network of the memory's queries.
        identity: the identity embedding.
    """

    more_parts = ("memory_optimiser",)

    def __init__(
        self, recipe: HeadposeRecipe, inputs: TrainerInputs, perceptual: PerceptualNetwork, identity: IdentityFeatures
    ) -> None:
        torch.manual_seed(recipe.loop.seed)
        self._identity = identity
        shape = replace(recipe.network, identity_size=identity.size, spatial_widths=perceptual.config.widths)
        network = HeadposeNetwork(shape)
        network.spatial.load_base(perceptual)
        self._judge = PatchDiscriminator(3 * (DRAWN_WINDOW + 1))
        self._frame = PatchDiscriminator(3)
        super().__init__(recipe, inputs, network, {"judge": self._judge, "frame": self._frame})
        self.memory_optimiser = torch.optim.Adam([self.network.spatial.weight], recipe.memory_learning_rate)
        self._triplet = self.device.parallel(self.network.spatial, self._triplet_loss)

    def _trained(self) -> list[nn.Parameter]:
        memory = {id(value) for value in self.network.spatial.parameters()}
        return [value for value in self.network.parameters() if id(value) not in memory]

    def _before_descent(self, step: int, batches: Sequence[DrawnBatch]) -> dict[str, float]:
        """Do the memory's step (footnote 5) with pairs of the rendered frame's spatial and the filmed frame's identity feature."""
        network, report = self.network, dict[str, float]()
        pairs = [(self._tensor(batch.pictures)[:, RENDERED], self._features(batch.targets)) for batch in batches]
        self.memory_optimiser.zero_grad(set_to_none=True)
        for number, (frames, identity) in enumerate(pairs):
            with self.device.without_exchange(self._triplet, last=number == len(pairs) - 1):
                losses = self._triplet(frames, identity)
                torch.autograd.backward(losses["triplet"] / len(pairs))
            add_mean(report, losses, len(pairs))
        self.memory_optimiser.step()
        with torch.no_grad():
            for frames, identity in pairs:
                query = network.spatial(frames)
                empty = query.new_zeros(len(query), 0, query.shape[1]), query.new_zeros(len(query), 0, identity.shape[1])
                recalled = (network.memory.recall(query[:, None], *empty)[:, 0] * identity).sum(dim=1).mean()
                add_mean(report, {"recalled_likeness": recalled}, len(pairs))
                # All processes write the pairs of all, so the memory does not depend on the number of processes.
                network.memory.update(self.device.gathered(query), self.device.gathered(identity))
        return {**report, "items": float(network.memory.num_present())}

    def _triplet_loss(self, frames: Tensor, identity: Tensor) -> dict[str, Tensor]:
        return {"triplet": self.network.memory.triplet_loss(self.network.spatial(frames), identity)}

    def _features(self, boxes: UInt8) -> Tensor:
        return torch.from_numpy(self._identity.of(boxes)).to(self.device.torch_device)

    def _drawn(self, batch: DrawnBatch) -> HeadposeDrawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        film, identity = inputs.new_zeros(len(inputs), self.network.film_size), self._features(batch.others)
        with self._autocast():
            masks = self.network.masks(inputs, film, identity)
        masks = Masks(masks.colour.float(), masks.attention.float())
        made = compose(inputs, refined(inputs[:, RENDERED], masks) - inputs[:, RENDERED], targets)
        window = critic_view(torch.cat([inputs[:, part] for part in (RENDERED, *RENDERED_BEFORE)], dim=1))
        return HeadposeDrawn(made, masks, window)

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

    def _after_descent(self, drawings: Sequence[HeadposeDrawn]) -> dict[str, float]:
        # The memory belongs to the spatial features as they are now, so neither memory nor features are averaged.
        self.average.spatial.load_state_dict(self.network.spatial.state_dict())
        return {"mean_attention": sum(float(drawn.masks.attention.mean()) for drawn in drawings) / len(drawings)}

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

    def write(self, folder: Path) -> None:
        """Write `headpose.safetensors`, and beside it a copy of the identity embedding, to which the memory belongs."""
        content = self._identity.path.read_bytes()
        write_whole(folder / f"{EMBEDDING}{self._identity.path.suffix}", content)
        facts = {**self.facts(), EMBEDDING: self._identity.sha256}
        save_weights(folder / WEIGHTS, self.average, self.network.config.to_metadata(), **facts)
