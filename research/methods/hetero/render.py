"""Training of the renderer of `hetero`: batches, losses, recipes, held-out clips, re-enactment and export.

The meta-training phase of the paper (Sec. 3.3.2): the network draws frame t from the composites around t and from a reference
picture t' != t of the same person. The fine-tuning phase is the personalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from research.render.export import RendererExportSpec, picture_and_state
from research.render.held_out import Clip, DrawnClip, HeldOut, TwoParts, base_faces, held_out, still_mouth
from research.render.losses import detail_loss
from research.render.people import BatchSource, People, PeopleSettings, random_colours, random_row
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
from services.common.array_types import Float32, UInt8
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.render.losses import (
    PatchDiscriminator,
    adversarial_loss,
    compose,
    discriminator_loss,
    discriminator_view,
    reconstruction_loss,
)
from services.render.networks.weights import save_weights
from services.render.pairs import NO_NOISE, Pair
from services.render.renderer import PersonalizeJob
from services.render.renderers.hetero.network import WEIGHTS, HeteroConfig, HeteroNetwork, load
from services.render.renderers.hetero.personalize import CompositeView, composite_pair, personalize_hetero, rows_around
from services.render.renderers.hetero.renderer import NUM_CHANNELS, STATE_SIZE, choose_references, unpacked

_FAR_FRAMES: Final = 12
_COLOURED_LIPS_SHARE: Final = 0.5
_MAKE_UP_SPREAD: Final = 0.3
_SOFT_EDGE_PX: Final = 1.5
_NAME: Final = "hetero"
SPEC: Final = RendererExportSpec(
    name="hetero", weights=WEIGHTS, load=load, inputs=picture_and_state(NUM_CHANNELS), extra_state=STATE_SIZE
)


class DiscriminatorOutputs(NamedTuple):
    """Outputs of a discriminator for pictures.

    Attributes:
        scores: float [B, 1, h, w], see PatchDiscriminator.
        features: outputs of the layers before the last, float [B, C, h, w] each.
    """

    scores: Tensor
    features: Sequence[Tensor]


def discriminator_outputs(discriminator: PatchDiscriminator, pictures: Tensor) -> DiscriminatorOutputs:
    """Return scores and features of pictures, float [B, in_channels, H, W] in [0, 1]."""
    features: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        features.append(output)

    hooks = [layer.register_forward_hook(keep) for layer in discriminator.layers if isinstance(layer, nn.LeakyReLU)]
    try:
        scores: Tensor = discriminator(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return DiscriminatorOutputs(scores, features)


def feature_matching_loss(drawn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Return the mean over layers of the mean absolute difference of features, in units of the real features' mean magnitude.

    Args:
        drawn: features of drawn pictures.
        real: features of footage, without gradient.
    """
    pairs = zip(drawn, real, strict=True)
    return torch.stack([(got - want).abs().mean() / want.abs().mean().clamp_min(1e-3) for got, want in pairs]).mean()


@dataclass(frozen=True, slots=True, eq=False)
class CompositeBatch:
    """Examples of a pass. The frames of a sequence follow each other.

    Attributes:
        pictures: uint8 [B, 160, 160, NUM_CHANNELS], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
    """

    pictures: UInt8
    targets: UInt8


class CompositeSource(BatchSource[CompositeBatch]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        seed: random seed.
        sequences_from: step from which on examples are sequences of consecutive frames. Before, they are single frames.
        length: frames of a sequence.
    """

    def __init__(self, people: People, *, seed: int, sequences_from: int, length: int) -> None:
        super().__init__(people, seed=seed)
        self._sequences_from, self._length = sequences_from, length

    def batch(self, step: int, index: int, size: int) -> CompositeBatch:
        """See BatchSource.batch. `size` counts sequences."""
        rng = self._rng(step, index)
        length = self._length if step >= self._sequences_from else 1
        pairs = [pair for _ in range(size) for pair in self._example(rng, self.people.draw(rng, step).bank, length)]
        return CompositeBatch(np.stack([pair.picture for pair in pairs]), np.stack([pair.target for pair in pairs]))

    def _example(self, rng: np.random.Generator, bank: MouthBank, length: int) -> list[Pair]:
        first = random_row(bank, rng)
        run = [first]
        for row in range(first + 1, first + length):
            # At a cut the last frame stands still.
            follows = row < bank.num_frames and bank.frame_index[row] - bank.frame_index[first] == row - first
            run.append(row if follows else run[-1])
        # A reference picture of the moment itself would hold the answer.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[first]) > _FAR_FRAMES + length)
        colours, mirror, lips = random_colours(rng), rng.random() < 0.5, random_lips(rng)

        def box(row: int) -> UInt8:
            return with_coloured_lips(colours.of(bank.boxes[row]), bank.box_landmarks[row], lips)

        reference = box(int(rng.choice(far)) if len(far) else first)
        seed = int(rng.integers(1 << 31))
        pairs = []
        for row in run:
            rows = rows_around(bank.frame_index, row)
            view = CompositeView(rows, np.stack([box(index) for index in rows]), reference)
            pair = composite_pair(bank, view, self._noise, seed)
            pairs.append(Pair(pair.picture[:, ::-1], pair.target[:, ::-1]) if mirror else pair)
        return pairs


def random_lips(rng: np.random.Generator) -> Float32:
    """Return a gain for each colour channel of the lips, float32 [3]; ones for half of the examples.

    Nineteen people have few colours of lips. With random ones, the network has to take the colour from the reference picture.
    """
    gain = np.exp(rng.normal(-_MAKE_UP_SPREAD / 2, _MAKE_UP_SPREAD, 3))
    return (gain if rng.random() < _COLOURED_LIPS_SHARE else np.ones(3)).astype(np.float32)


def with_coloured_lips(box: UInt8, box_landmarks: Float32, gain: Float32) -> UInt8:
    """Return a render box with coloured lips: uint8 [160, 160, 3].

    Args:
        box: uint8 [160, 160, 3].
        box_landmarks: float32 [59, 2], tracked landmarks, box pixels.
        gain: float32 [3], factor for each colour channel.
    """
    if (gain == 1.0).all():
        return box
    outer, inside = np.moveaxis(lip_pictures(box_landmarks), 2, 0)
    lips = cv2.GaussianBlur(cv2.subtract(outer, inside), (0, 0), _SOFT_EDGE_PX).astype(np.float32)[..., None] / 255.0
    return np.asarray(np.clip(np.rint(box * (1.0 + lips * (gain - 1.0))), 0, 255), dtype=np.uint8)


def read_composites(clip: Clip, num_frames: int, reference: UInt8 | None = None) -> HeldOut:
    """Return a clip with windows of composites.

    Args:
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        reference: uint8 [160, 160, 3], the reference picture; None: chosen from the enrolment part.
    """
    chosen = reference

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        if chosen is None:
            chosen = parts.bank.boxes[choose_references(parts.bank)[0]]
        rows = rows_around(parts.whole.frame_index, row)
        return composite_pair(parts.whole, CompositeView(rows, parts.whole.boxes[list(rows)], chosen), NO_NOISE, 0)

    return held_out(clip, num_frames, pair)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroWeights:
    """Weights of Eq. 4 (L_r = perceptual, lambda_s = spatial, lambda_t = temporal), then of the added losses.

    L_s and L_t have two terms each: the least-squares adversarial loss, and `matching` times the feature matching loss. Added are
    the absolute error in the mask, because the small perceptual network hardly sees colour, and the strength of fine detail.
    """

    perceptual: float = 1.0
    spatial: float = 1.0
    temporal: float = 0.5
    matching: float = 1.0
    reconstruction: float = 10.0
    detail: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroRecipe(Recipe):
    """Recipe of the prior's training. In the second phase, `batch` counts sequences of consecutive frames.

    The landmark translator needs no sound, so the training takes all footage with sharp pixels, most of it close-ups.

    Attributes:
        sequence: frames of a sequence that the temporal discriminator sees.
        network: shape of the network.
        weights: weights of the losses. With `temporal` 0 there is no temporal discriminator.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=900, seed=20271, bfloat16=True))
    warm_steps: int = 600
    warm_batch: int = 6
    batch: int = 2
    learning_rate: float = 2e-3
    adversarial_learning_rate: float = 5e-4
    people: PeopleSettings = field(default_factory=lambda: PeopleSettings(sharp_share=0.6))
    sequence: int = 3
    network: HeteroConfig = field(default_factory=HeteroConfig)
    weights: HeteroWeights = field(default_factory=HeteroWeights)


CONFIGS: Final = {
    "default": HeteroRecipe(),
    "large": for_a_gpu(
        HeteroRecipe(),
        batch=12,
        network=HeteroConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4), embedder_widths=(32, 64, 128, 256), rank=8),
    ),
}


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
        return {"reconstruction": self.recipe.weights.reconstruction * reconstruction_loss(drawn.composed)}

    def _adversarial_terms(self, drawn: Drawn, view: Tensor) -> dict[str, Tensor]:
        # Without discriminators the network has no fine detail yet, whose strength could be compared.
        terms = {"detail": self.recipe.weights.detail * detail_loss(drawn.composed)}
        target = discriminator_view(drawn.composed.target)
        for name, discriminator, weight, generated, real in self._discriminator_terms(view, target):
            got = discriminator_outputs(discriminator, generated)
            with torch.no_grad():
                features = discriminator_outputs(discriminator, real).features
            terms[name] = weight * adversarial_loss(got.scores)
            terms[f"{name}_matching"] = weight * self.recipe.weights.matching * feature_matching_loss(got.features, features)
        return terms

    def _discriminator_losses(self, drawn: Drawn, view: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {
            f"{name}_judge": discriminator_loss(discriminator(real), discriminator(generated))
            for name, discriminator, _, generated, real in self._discriminator_terms(view, target)
        }

    def _discriminator_terms(self, view: Tensor, target: Tensor) -> list[tuple[str, PatchDiscriminator, float, Tensor, Tensor]]:
        """Return name, discriminator, weight, drawn pictures and footage of both discriminators."""
        weights, length = self.recipe.weights, self.recipe.sequence
        terms = [("spatial", self._spatial, weights.spatial, view, target)]
        if weights.temporal:
            generated, real = (part.reshape(-1, 3 * length, *part.shape[2:]) for part in (view, target))
            terms.append(("temporal", self._temporal, weights.temporal, generated, real))
        return terms

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `hetero.safetensors`."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title."""
    bank = read_composites(task.clip, 2).bank

    def drawn(*, train: bool) -> DrawnClip:
        job = PersonalizeJob(bank=bank, drawing=None, weights=task.weights, num_threads=task.threads, train=train)
        state, reference = unpacked(task.last_state(personalize_hetero(job)))
        clip = read_composites(task.clip, 0, reference).first(task.frames)
        return DrawnClip(clip, task.draw(_NAME, state, clip.pairs))

    clip = read_composites(task.clip, 0).first(task.frames)
    return {
        "still mouth": lambda: still_mouth(clip),
        "reference picture": lambda: base_faces(clip),
        "prior": lambda: drawn(train=False),
        PERSONALISED: lambda: drawn(train=True),
    }


def _open(opening: Opening) -> HeteroTrainer:
    recipe = opening.config
    source = CompositeSource(
        training_people(opening), seed=recipe.loop.seed, sequences_from=recipe.warm_steps, length=recipe.sequence
    )
    return HeteroTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_composites))


NETWORK: Final[TrainableNetwork] = renderer_network(
    SPEC,
    summary="draws the lower face of a frame from drawn landmarks and a reference picture of the actor",
    configs=CONFIGS,
    open_training=_open,
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_composites, reenact=reenact)
