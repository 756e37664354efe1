"""Trainer of the prior of `hetero`, the meta-training phase: Eq. 4 of the paper, in the units of services/render/losses.py."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from services.render.losses import adversarial_loss, compose, critic_view, detail_loss, discriminator_loss, reconstruction_loss
from services.render.networks.discriminators import PatchDiscriminator
from services.render.networks.feature_matching import feature_matching_loss, judged
from services.render.networks.weights import save_weights
from services.render.renderers.hetero.network import WEIGHTS, HeteroNetwork
from services.render.renderers.hetero.train.footage import CompositeBatch
from services.render.renderers.hetero.train.recipes import HeteroRecipe
from services.render.train.trainer import Drawn, Trainer, TrainerInputs


class HeteroTrainer(Trainer[HeteroRecipe, HeteroNetwork, CompositeBatch, Drawn]):
    """Trainer of embedder and generator with a spatial discriminator and a temporal discriminator."""

    def __init__(self, recipe: HeteroRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = HeteroNetwork(recipe.network)
        self._spatial = PatchDiscriminator(3)
        self._temporal = PatchDiscriminator(3 * recipe.sequence)
        super().__init__(recipe, inputs, network, {"spatial": self._spatial, "temporal": self._temporal})

    def _drawn(self, batch: CompositeBatch) -> Drawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        with self._autocast():
            residual = self.network(inputs, self._default_states(len(inputs)))
        return Drawn(compose(inputs, residual.float(), targets))

    def _terms(self, drawn: Drawn) -> dict[str, Tensor]:
        return {"reconstruction": self.recipe.weights.reconstruction * reconstruction_loss(drawn.made)}

    def _judged_terms(self, drawn: Drawn, view: Tensor) -> dict[str, Tensor]:
        # Without discriminators the network has no fine detail yet, whose strength could be compared.
        terms = {"detail": self.recipe.weights.detail * detail_loss(drawn.made)}
        wanted = critic_view(drawn.made.target)
        for name, judge, weight, made, real in self._judgements(view, wanted):
            got = judged(judge, made)
            with torch.no_grad():
                features = judged(judge, real).features
            terms[name] = weight * adversarial_loss(got.scores)
            terms[f"{name}_matching"] = weight * self.recipe.weights.matching * feature_matching_loss(got.features, features)
        return terms

    def _judge_losses(self, drawn: Drawn, view: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        return {
            f"{name}_judge": discriminator_loss(judge(real), judge(made))
            for name, judge, _, made, real in self._judgements(view, wanted)
        }

    def _judgements(self, view: Tensor, wanted: Tensor) -> list[tuple[str, PatchDiscriminator, float, Tensor, Tensor]]:
        """Return name, discriminator, weight, drawn pictures and footage of both discriminators."""
        weights, length = self.recipe.weights, self.recipe.sequence
        judgements = [("spatial", self._spatial, weights.spatial, view, wanted)]
        if weights.temporal:
            made, real = (part.reshape(-1, 3 * length, *part.shape[2:]) for part in (view, wanted))
            judgements.append(("temporal", self._temporal, weights.temporal, made, real))
        return judgements

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `hetero.safetensors`."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())
