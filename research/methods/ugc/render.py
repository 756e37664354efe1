"""Training of the renderer of `ugc`: batches, losses, recipes, held-out clips, re-enactment and export.

Two phases: reconstruction and perceptual loss alone, then all five losses (services/render/losses.py) with a discriminator of
frames and a discriminator of sequences (paper, Eq. 11 and 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from research.render.export import RendererExportSpec, picture_and_state
from research.render.held_out import Clip, DrawnClip, HeldOut, TwoParts, base_faces, held_out
from research.render.losses import reconstruction_terms
from research.render.people import BatchSource, PeopleSettings, random_colours, random_row
from research.render.trainer import Drawn, Recipe, Trainer, TrainerInputs, for_a_gpu
from research.render.training import (
    PERSONALISED,
    Reenactment,
    RendererTraining,
    Rows,
    open_perceptual,
    renderer_network,
    trainer_inputs,
    training_people,
)
from research.training.networks import Opening, TrainableNetwork
from research.training.training import LoopSettings
from services.common.array_types import UInt8
from services.common.face.mouth_bank import MouthBank
from services.render.losses import PatchDiscriminator, RenderLossWeights, adversarial_loss, compose, discriminator_loss
from services.render.networks.weights import save_weights
from services.render.pairs import BASE, MASK, NEAREST_FRAMES, Pair, perturbed
from services.render.renderer import PersonalizeJob
from services.render.renderers.ugc.network import WEIGHTS, UgcConfig, UgcNetwork, load
from services.render.renderers.ugc.personalize import choose_sources, make_pair, personalize_ugc
from services.render.renderers.ugc.renderer import NUM_PICTURE_CHANNELS

_CANDIDATES: Final = (4, 30, 150)
_BLENDED: Final = 3
FRAME_DISCRIMINATOR: Final = "frame_discriminator.safetensors"
"""Name of the file with the discriminator of frames, which personalisation needs."""
SEQUENCE_FRAMES: Final = 6
"""Frames that the discriminator of sequences sees at once (paper, Sec. III-C)."""
_NAME = "ugc"
SPEC: Final = RendererExportSpec(name="ugc", weights=WEIGHTS, load=load, inputs=picture_and_state(NUM_PICTURE_CHANNELS))


@dataclass(frozen=True, slots=True, eq=False)
class UgcRenderBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, 9], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
        num_sequence: the first `num_sequence` examples are consecutive frames of one clip.
    """

    pictures: UInt8
    targets: UInt8
    num_sequence: int


class UgcSource(BatchSource[UgcRenderBatch]):
    """Draws batches from people, each person as often as their share says."""

    def batch(self, step: int, index: int, size: int) -> UgcRenderBatch:
        """See BatchSource.batch."""
        return self.batch_with_sequence(step, index, size, 0)

    def batch_with_sequence(self, step: int, index: int, num_single: int, num_sequence: int) -> UgcRenderBatch:
        """Return a batch of consecutive frames and single examples, always the same for the same seed, step and index.

        Args:
            index: number of the batch within the step.
            num_single: number of single examples.
            num_sequence: number of consecutive frames of one clip.
        """
        rng = self._rng(step, index)
        pairs: list[Pair] = []
        if num_sequence:
            bank = self.people.draw(rng, step).bank
            first = int(rng.choice(_starts(bank, num_sequence)))
            pairs += self._augmented(bank, range(first, first + num_sequence), rng)
        for _ in range(num_single):
            bank = self.people.draw(rng, step).bank
            pairs += self._augmented(bank, [random_row(bank, rng)], rng)
        pictures, targets = np.stack([pair.picture for pair in pairs]), np.stack([pair.target for pair in pairs])
        return UgcRenderBatch(pictures, targets, num_sequence)

    def _augmented(self, bank: MouthBank, rows: Sequence[int], rng: np.random.Generator) -> list[Pair]:
        # All frames of a sequence share one draw: colours and mirror must not flicker, and all choose from the same candidates.
        away = np.abs(bank.frame_index[:, None] - bank.frame_index[list(rows)]).min(axis=1)
        # Nearer frames must serve too where a person has one short clip.
        far = away > min(2 * len(rows) + NEAREST_FRAMES, max(NEAREST_FRAMES, float(np.median(away))))
        allowed = rng.choice(np.flatnonzero(far), int(rng.choice(_CANDIDATES)))
        num_blended = int(rng.integers(1, 4))
        colours, mirror = random_colours(rng), rng.random() < 0.5
        pairs = []
        for row in rows:
            sources = choose_sources(bank, row, allowed, num_blended)
            pair = make_pair(bank, row, sources, perturbed(bank.mouth[row], self._noise, rng))
            background, texture = colours.of(pair.picture[..., :3]), colours.of(pair.picture[..., BASE])
            background[pair.picture[..., MASK] > 0] = 0
            picture = np.dstack([background, texture, pair.picture[..., MASK:]])
            target = colours.of(pair.target)
            if mirror:
                picture, target = picture[:, ::-1], target[:, ::-1]
            pairs.append(Pair(picture, target))
        return pairs


def _starts(bank: MouthBank, length: int) -> list[int]:
    """Return rows at which `length` consecutive frames begin; of footage with many gaps, rows with frames across a gap."""
    last = bank.num_frames - length + 1
    spans = bank.frame_index[length - 1 :] - bank.frame_index[:last]
    starts: list[int] = np.flatnonzero(spans == length - 1).tolist()
    return starts or list(range(last))


def read_textured(clip: Clip, num_frames: int) -> HeldOut:
    """Return a clip with pairs whose texture is warped from the bank to the frame's own landmarks.

    Args:
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
    """

    def pair(parts: TwoParts, row: int) -> Pair:
        sources = choose_sources(parts.whole, row, np.arange(parts.bank.num_frames), _BLENDED)
        return make_pair(parts.whole, row, sources, parts.whole.mouth[row])

    return held_out(clip, num_frames, pair)


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcRecipe(Recipe):
    """Recipe of the prior's training.

    Attributes:
        batch: single examples beside the sequence, per batch in the second phase.
        network: shape of the network.
        weights: weights of the losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=750, seed=20262, bfloat16=True))
    warm_steps: int = 400
    warm_batch: int = 8
    batch: int = 2
    adversarial_learning_rate: float = 3e-4
    average_decay: float = 0.995
    people: PeopleSettings = field(default_factory=lambda: PeopleSettings(sharp_share=0.6))
    network: UgcConfig = field(default_factory=UgcConfig)
    weights: RenderLossWeights = field(default_factory=RenderLossWeights)


CONFIGS: Final = {
    "default": UgcRecipe(),
    # Widths of the first four levels of the U-Net of pix2pix (Isola et al. 2017, App. 6.1): 64, 128, 256, 512.
    "large": for_a_gpu(
        UgcRecipe(),
        batch=26,
        network=UgcConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4)),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class UgcDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        num_sequence: the first `num_sequence` pictures are consecutive frames of one clip.
    """

    num_sequence: int


class UgcTrainer(Trainer[UgcRecipe, UgcNetwork, UgcRenderBatch, UgcDrawn]):
    """Trainer of the network with a discriminator of frames and a discriminator of sequences."""

    def __init__(self, recipe: UgcRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = UgcNetwork(recipe.network)
        self._frame = PatchDiscriminator(3)
        self._sequence = PatchDiscriminator(3 * SEQUENCE_FRAMES)
        assert isinstance(inputs.source, UgcSource)
        self._source = inputs.source
        super().__init__(recipe, inputs, network, {"frame": self._frame, "sequence": self._sequence})

    def batch(self, step: int, index: int) -> UgcRenderBatch:
        """See Training.batch."""
        num_sequence = 0 if step < self.recipe.warm_steps else SEQUENCE_FRAMES
        return self._source.batch_with_sequence(step, index, self.recipe.batch_of(step), num_sequence)

    def _drawn(self, batch: UgcRenderBatch) -> UgcDrawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        with self._autocast():
            residual = self.network(inputs, self._default_states(len(inputs)))
        return UgcDrawn(compose(inputs, residual.float(), targets), batch.num_sequence)

    def _terms(self, drawn: UgcDrawn) -> dict[str, Tensor]:
        return reconstruction_terms(drawn.composed, self.recipe.weights)

    def _adversarial_terms(self, drawn: UgcDrawn, view: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "frame": weights.frame * adversarial_loss(self._frame(view)),
            "sequence": weights.sequence * adversarial_loss(self._sequence(_sequence(view, drawn))),
        }

    def _discriminator_losses(self, drawn: UgcDrawn, view: Tensor, target: Tensor) -> dict[str, Tensor]:
        filmed, generated = _sequence(target, drawn), _sequence(view, drawn)
        return {
            "frame_judge": discriminator_loss(self._frame(target), self._frame(view)),
            "sequence_judge": discriminator_loss(self._sequence(filmed), self._sequence(generated)),
        }

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `ugc.safetensors` and `frame_discriminator.safetensors`."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())
        save_weights(folder / FRAME_DISCRIMINATOR, self._frame, {"in_channels": 3}, **self.facts())


def _sequence(pictures: Tensor, drawn: UgcDrawn) -> Tensor:
    """Return the consecutive frames, stacked along the channels: float [1, 3 T, h, w]."""
    return torch.flatten(pictures[None, : drawn.num_sequence], 1, 2)


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title."""
    clip = read_textured(task.clip, 0).first(task.frames)

    def prior() -> DrawnClip:
        return DrawnClip(clip, task.draw(_NAME, np.zeros(task.files[_NAME].state_size, np.float32), clip.pairs))

    def personalised() -> DrawnClip:
        state = task.last_state(
            personalize_ugc(PersonalizeJob(bank=clip.bank, drawing=None, weights=task.weights, num_threads=task.threads))
        )
        return DrawnClip(clip, task.draw(_NAME, state, clip.pairs))

    return {"texture": lambda: base_faces(clip), "prior": prior, PERSONALISED: personalised}


def _open(opening: Opening) -> UgcTrainer:
    recipe = opening.config
    source = UgcSource(training_people(opening), seed=recipe.loop.seed)
    return UgcTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_textured))


NETWORK: Final[TrainableNetwork] = renderer_network(
    SPEC,
    summary="corrects a warped texture to the target lips of a frame",
    configs=CONFIGS,
    open_training=_open,
    more_files=lambda _run: (FRAME_DISCRIMINATOR,),
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_textured, reenact=reenact)
