"""Training of the renderer of `headpose`: batches, losses, recipes, held-out clips, re-enactment and export.

Eq. 4 of the paper, in the units of services/render/losses.py: adversarial loss (least squares, for the reason given there), L1,
and size and smoothness of the attention mask. The adversarial loss comes from a patch discriminator that sees the window of
rendered frames and the frame that was drawn or filmed. Three losses are added: perceptual, adversarial with a discriminator of
single frames, and strength of detail.

Still mouth, rendered frame alone, prior and personalised with either albedo, an actor from a single still picture, and the
paper's ablations: no memory (the mean identity feature) and no identity feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.methods.headpose import identity_embedding, mouth_interior
from research.render.export import RendererExportSpec, picture_and_state
from research.render.held_out import (
    Clip,
    DrawnClip,
    Faces,
    HeldOut,
    TwoParts,
    base_faces,
    draw_sheet,
    held_out,
    spread_indices,
    still_mouth,
)
from research.render.losses import detail_loss
from research.render.people import (
    BatchSource,
    People,
    TrainingPerson,
    grey_keys,
    identified_rows,
    person_clips,
    random_colours,
    random_row,
    read_drawing,
)
from research.render.trainer import Drawn, Recipe, Trainer, TrainerInputs, add_mean, for_a_gpu
from research.render.training import (
    PERSONALISED,
    Reenactment,
    RendererTraining,
    Rows,
    open_perceptual,
    renderer_network,
    trainer_inputs,
)
from research.training.networks import Opening, TrainableNetwork
from research.training.training import LoopSettings
from research.training.trainset import BoundedCache, TrainSet
from services.common.array_types import Float32, UInt8
from services.common.face.drawing import IdentityDrawing
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.files import write_whole
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.key_pictures import STATE_SIZE as KEYS_STATE_SIZE
from services.render.key_pictures import KeyPictures, choose_keys, unpacked
from services.render.losses import (
    PatchDiscriminator,
    adversarial_loss,
    compose,
    discriminator_loss,
    discriminator_view,
    reconstruction_loss,
)
from services.render.networks.perceptual import PerceptualNetwork
from services.render.networks.weights import save_weights, to_tensor
from services.render.pairs import MASK, NO_NOISE, Pair, window_rows
from services.render.renderer import PersonalizeJob
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityFeatures, embedding_of, read_identity_features
from services.render.renderers.headpose.network import (
    NEVER,
    WEIGHTS,
    HeadposeConfig,
    HeadposeNetwork,
    IdentityMemory,
    Masks,
    load,
    refined,
)
from services.render.renderers.headpose.personalize import DrawnView, drawn_pair, personalize_headpose
from services.render.renderers.headpose.renderer import (
    DRAWN_WINDOW,
    FIRST_KEY,
    INPUT_KEYS,
    OTHER_KEYS,
    PICTURE_CHANNELS,
    RENDERED,
    RENDERED_BEFORE,
    with_detail,
)

_DRAWINGS_KEPT: Final = 64
_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04
_STILL_SHARE: Final = 0.3
_DETAILED_SHARE: Final = 0.5
_NAME = "headpose"
SPEC: Final = RendererExportSpec(
    name="headpose", weights=WEIGHTS, load=load, inputs=picture_and_state(PICTURE_CHANNELS), extra_state=KEYS_STATE_SIZE
)


@dataclass(frozen=True, slots=True, eq=False)
class Drawings:
    """Two drawings of one person.

    Attributes:
        footage: drawing fitted on many frames.
        still: drawing fitted on a single frame.
    """

    footage: IdentityDrawing
    still: IdentityDrawing


def read_drawings(data: TrainSet, speaker: str) -> Drawings:
    """Return the drawings of a person, from the identities that `dubstage trainset` fitted.

    Raises:
        InvalidRequestError: the set has no identity of this person, or a file holds something else.
    """
    models = MorphableModels()
    return Drawings(*(read_drawing(data, speaker, still=still, models=models) for still in (False, True)))


@dataclass(frozen=True, slots=True, eq=False)
class DrawnBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, PICTURE_CHANNELS], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
        others: uint8 [B, 160, 160, 3], another moment of the same person in the same colours. The generator gets the identity
            feature of this moment, because the target's own feature would give the answer away.
    """

    pictures: UInt8
    targets: UInt8
    others: UInt8


class DrawnSource(BatchSource[DrawnBatch]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        drawings: returns the drawings of a person by name.
        seed: random seed.
    """

    def __init__(self, people: People, drawings: Callable[[str], Drawings], *, seed: int) -> None:
        super().__init__(people, seed=seed)
        # The size is counted in people. Threads that make batches ahead need the people of two pools.
        self._drawings = BoundedCache[str, Drawings](drawings, lambda _: 1, _DRAWINGS_KEPT)

    def batch(self, step: int, index: int, size: int) -> DrawnBatch:
        """See BatchSource.batch."""
        rng = self._rng(step, index)
        drawn = [self._example(rng, self.people.draw(rng, step)) for _ in range(size)]
        return DrawnBatch(*(np.stack(parts) for parts in zip(*drawn, strict=True)))

    def _example(self, rng: np.random.Generator, person: TrainingPerson) -> tuple[UInt8, ...]:
        bank, drawings = person.bank, self._drawings[person.name]
        row = random_row(bank, rng)
        # No key picture of the actor may show the moment that is asked for.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > _FAR_FRAMES)
        kind = rng.random()
        is_still = kind < _GREY_SHARE + _STILL_SHARE
        keys = grey_keys() if kind < _GREY_SHARE else _some_keys(bank, far, 1 if is_still else int(rng.choice(_CANDIDATES)), rng)
        colours, mirror = random_colours(rng), rng.random() < 0.5
        rows = window_rows(bank.frame_index, row, DRAWN_WINDOW)
        view = DrawnView(
            rows=rows,
            boxes=np.stack([colours.of(bank.boxes[index]) for index in rows]),
            keys=colours.of_keys(keys),
            drawing=drawings.still if is_still else drawings.footage,
            detailed=is_still or rng.random() < _DETAILED_SHARE,
            paint=colours.of,
        )
        pair = drawn_pair(bank, view, self._noise, int(rng.integers(1 << 31)))
        other = colours.of(bank.boxes[int(rng.choice(far)) if len(far) else row])
        parts = (pair.picture, pair.target, other)
        return tuple(part[:, ::-1] for part in parts) if mirror else parts


def _some_keys(bank: MouthBank, far: npt.NDArray[np.intp], count: int, rng: np.random.Generator) -> KeyPictures:
    return choose_keys(bank, np.sort(rng.choice(far, count))) if len(far) else grey_keys()


def read_drawn(
    clip: Clip, num_frames: int, drawing: IdentityDrawing, *, detailed: bool, keys: KeyPictures | None = None
) -> HeldOut:
    """Return a clip with windows of drawn faces.

    Args:
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        drawing: draws the person, fitted on the first part.
        detailed: draw with the detailed albedo.
        keys: key pictures of the actor; None: chosen from the enrolment part.
    """
    chosen = keys

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        chosen = chosen or choose_keys(parts.bank, np.arange(parts.bank.num_frames))
        window = window_rows(parts.whole.frame_index, row, DRAWN_WINDOW)
        view = DrawnView(window, parts.whole.boxes[list(window)], chosen, drawing, detailed)
        return drawn_pair(parts.whole, view, NO_NOISE, 0)

    return held_out(clip, num_frames, pair)


def attention_loss(masks: Masks, inside: Tensor) -> Tensor:
    """Return the second term of Eq. 4's attention loss: mean A^2 inside the mask, which keeps A from saturating at 1.

    Args:
        masks: outputs of the generator.
        inside: float [B, 1, 160, 160], the lower-face mask.
    """
    return (masks.attention.square() * inside).sum() / inside.sum()


def attention_smoothness_loss(masks: Masks, inside: Tensor) -> Tensor:
    """Return the third term of Eq. 4's attention loss: mean squared difference of neighbouring values of A inside the mask.

    Args:
        masks: outputs of the generator.
        inside: float [B, 1, 160, 160], the lower-face mask.
    """
    attention = masks.attention
    down = ((attention[..., 1:, :] - attention[..., :-1, :]).square() * inside[..., 1:, :]).sum()
    across = ((attention[..., 1:] - attention[..., :-1]).square() * inside[..., 1:]).sum()
    return (down + across) / inside.sum()


def triplet_loss(memory: IdentityMemory, query: Tensor, identity: Tensor) -> Tensor:
    """Return the threshold triplet loss: mean of max(0, q . k_negative - q . k_positive + margin).

    The positive item is the nearest item with the same person's identity feature (cosine at least the threshold). The negative
    item is the nearest item with another person's. A query that lacks one of the two counts 0.

    Args:
        memory: the memory of the network.
        query: float [B, S], unit spatial features, with gradient.
        identity: float [B, D], unit identity features of the queries.
    """
    likeness = query @ memory.spatial.T
    present = memory.present()
    same = (identity @ memory.identity.T) >= memory.config.threshold
    near = likeness.detach().masked_fill(~present, -NEVER)
    rank = near.argsort(dim=1, descending=True)[:, : memory.config.neighbours]
    allowed = torch.zeros_like(present.expand_as(same)).scatter(1, rank, value=True) & present
    positive = likeness.masked_fill(~(same & allowed), -NEVER).amax(dim=1)
    negative = likeness.masked_fill(~(~same & allowed), -NEVER).amax(dim=1)
    both = (positive > -NEVER) & (negative > -NEVER)
    return (F.relu(negative - positive + memory.config.margin) * both).mean()


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
    """Recipe of the prior's training.

    Attributes:
        memory_learning_rate: learning rate of the spatial features' layer.
        arcface: path of your own ArcFace file (.onnx; services.render.renderers.headpose.identity_features) for the identity
            features; empty: the identity embedding.
        network: shape of the network. The sizes of the identity feature and of the spatial feature's network are those of the
            embedding and of the perceptual network.
        weights: weights of the losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, seed=20269, bfloat16=True))
    warm_steps: int = 300
    warm_batch: int = 6
    batch: int = 5
    adversarial_learning_rate: float = 3e-4
    memory_learning_rate: float = 2e-3
    arcface: str = ""
    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    weights: HeadposeWeights = field(default_factory=HeadposeWeights)


CONFIGS: Final = {
    "default": HeadposeRecipe(),
    # Widths of the first four levels of the U-Net of pix2pix (Isola et al. 2017, App. 6.1): 64, 128, 256, 512. A memory for more
    # people has more items.
    "large": for_a_gpu(
        HeadposeRecipe(),
        network=HeadposeConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4), items=1024),
    ),
}


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
        self._discriminator = PatchDiscriminator(3 * (DRAWN_WINDOW + 1))
        self._frame = PatchDiscriminator(3)
        super().__init__(recipe, inputs, network, {"judge": self._discriminator, "frame": self._frame})
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
        return {"triplet": triplet_loss(self.network.memory, self.network.spatial(frames), identity)}

    def _features(self, boxes: UInt8) -> Tensor:
        return torch.from_numpy(self._identity.of(boxes)).to(self.device.torch_device)

    def _drawn(self, batch: DrawnBatch) -> HeadposeDrawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        film, identity = inputs.new_zeros(len(inputs), self.network.film_size), self._features(batch.others)
        with self._autocast():
            masks = self.network.masks(inputs, film, identity)
        masks = Masks(masks.colour.float(), masks.attention.float())
        composed = compose(inputs, refined(inputs[:, RENDERED], masks) - inputs[:, RENDERED], targets)
        window = discriminator_view(torch.cat([inputs[:, part] for part in (RENDERED, *RENDERED_BEFORE)], dim=1))
        return HeadposeDrawn(composed, masks, window)

    def _terms(self, drawn: HeadposeDrawn) -> dict[str, Tensor]:
        weights, composed = self.recipe.weights, drawn.composed
        return {
            "reconstruction": weights.reconstruction * reconstruction_loss(composed),
            "attention": weights.attention * attention_loss(drawn.masks, composed.mask),
            "smoothness": weights.smoothness * attention_smoothness_loss(drawn.masks, composed.mask),
            "detail": weights.detail * detail_loss(composed),
        }

    def _adversarial_terms(self, drawn: HeadposeDrawn, view: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "adversarial": weights.adversarial * adversarial_loss(self._discriminator(torch.cat([drawn.window, view], dim=1))),
            "frame": weights.frame * adversarial_loss(self._frame(view)),
        }

    def _after_descent(self, drawings: Sequence[HeadposeDrawn]) -> dict[str, float]:
        # The memory belongs to the spatial features as they are now, so neither memory nor features are averaged.
        self.average.spatial.load_state_dict(self.network.spatial.state_dict())
        return {"mean_attention": sum(float(drawn.masks.attention.mean()) for drawn in drawings) / len(drawings)}

    def _discriminator_losses(self, drawn: HeadposeDrawn, view: Tensor, target: Tensor) -> dict[str, Tensor]:
        filmed, generated = (self._discriminator(torch.cat([drawn.window, seen], dim=1)) for seen in (target, view))
        return {
            "judge": discriminator_loss(filmed, generated),
            "frame_judge": discriminator_loss(self._frame(target), self._frame(view)),
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


def open_headpose(opening: Opening) -> HeadposeTrainer:
    """Open a training. People without an identity are left out.

    Raises:
        InvalidRequestError: nobody has an identity, the set has no clip to check with, or a file that the recipe names cannot be
            used.
        ModelNotFoundError: a weights file is missing.
    """
    recipe, data = opening.config, opening.data
    rows, without = identified_rows(data, needs_still=True)
    people = People(data, person_clips(rows), recipe.people, seed=recipe.loop.seed)
    source = DrawnSource(people, lambda speaker: read_drawings(data, speaker), seed=recipe.loop.seed)
    perceptual = open_perceptual(opening)
    inputs = trainer_inputs(opening, source, perceptual, read_held_out, without=without)
    return HeadposeTrainer(recipe, inputs, perceptual, _identity_features(opening))


def _identity_features(opening: Opening) -> IdentityFeatures:
    device = opening.device.torch_device
    if opening.config.arcface:
        return read_identity_features(Path(opening.config.arcface))
    folder = opening.run_of(EMBEDDING) or WEIGHTS_FOLDER
    return read_identity_features(folder / f"{EMBEDDING}.safetensors", device)


def read_held_out(clip: Clip, num_frames: int) -> HeldOut:
    """Return a held-out clip with drawn windows, evenly spread; see research.render.held_out."""
    return read_drawn(clip, num_frames, read_drawings(clip.data, clip.row.speaker).footage, detailed=False)


def keys_of_input(picture: UInt8) -> UInt8:
    """Return the key pictures that an input of the network shows: uint8 [INPUT_KEYS, H, W, 3]."""
    keys = [picture[..., FIRST_KEY], *np.split(picture[..., OTHER_KEYS], INPUT_KEYS - 1, axis=-1)]
    return np.stack(keys)


def detailed_as_keys(shown: DrawnClip) -> DrawnClip:
    """Return drawn faces with the strength of detail of their key pictures."""
    pairs = zip(shown.clip.pairs, shown.faces, strict=True)
    return DrawnClip(shown.clip, [with_detail(face, keys_of_input(pair.picture), pair.picture[..., MASK]) for pair, face in pairs])


@torch.no_grad()
def draw_with(network: HeadposeNetwork, pairs: Sequence[Pair], actor: Float32, identity: torch.Tensor) -> Faces:
    """Return faces drawn with an identity feature that does not come from the memory.

    Args:
        network: the prior.
        actor: float32 [S], actor's state without key pictures.
        identity: float [1, D], the identity feature.
    """
    faces = []
    for pair in pairs:
        pictures = to_tensor(pair.picture[None])
        masks = network.masks(pictures, torch.from_numpy(actor[None, : network.film_size]), identity)
        face = refined(pictures[:, RENDERED], masks)
        faces.append(np.clip(np.rint(face[0].permute(1, 2, 0).numpy() * 255.0), 0, 255).astype(np.uint8))
    return faces


@torch.no_grad()
def attention_of(network: HeadposeNetwork, pair: Pair, actor: Float32) -> UInt8:
    """Return the attention mask A of a pair as a grey picture: uint8 [160, 160, 3].

    Args:
        network: the prior.
        actor: float32 [S], actor's state without key pictures.
    """
    pictures, state = to_tensor(pair.picture[None]), torch.from_numpy(actor[None])
    masks = network.masks(pictures, state[:, : network.film_size], network.identity_of(pictures, state))
    levels = np.rint(masks.attention[0].permute(1, 2, 0).numpy() * 255.0).astype(np.uint8)
    return np.repeat(levels, 3, axis=2)


class Actors:
    """Actors of one clip, and the clip's pairs for them.

    Args:
        task: the clip and the tools.
    """

    def __init__(self, task: Reenactment) -> None:
        self._task = task
        self._drawings = read_drawings(task.clip.data, task.clip.row.speaker)
        self.bank = self._read(None, detailed=False, num_frames=2).bank
        self.actor, keys = unpacked(task.last_state(personalize_headpose(self._job(self.bank, still=False))))
        self.clip, self.detailed = self._read(keys, detailed=False), self._read(keys, detailed=True)

    def still(self) -> DrawnClip:
        """Return faces of an actor from the bank's first frame."""
        bank = self.bank
        picture = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
        actor, keys = unpacked(self._task.last_state(personalize_headpose(self._job(picture, still=True))))
        return self.served(actor, self._read(keys, detailed=True, still=True))

    def drawn(self, actor: Float32, clip: HeldOut) -> DrawnClip:
        """Return faces as the network draws them for an actor's state without key pictures."""
        return DrawnClip(clip, self._task.draw(_NAME, actor, clip.pairs))

    def served(self, actor: Float32, clip: HeldOut) -> DrawnClip:
        """Return faces as the stream serves them: drawn, then with the strength of detail of the key pictures."""
        return detailed_as_keys(self.drawn(actor, clip))

    def _job(self, bank: MouthBank, *, still: bool) -> PersonalizeJob:
        drawing = self._drawings.still if still else self._drawings.footage
        return PersonalizeJob(bank=bank, drawing=drawing, weights=self._task.weights, num_threads=self._task.threads)

    def _read(self, keys: KeyPictures | None, *, detailed: bool, still: bool = False, num_frames: int = 0) -> HeldOut:
        drawing = self._drawings.still if still else self._drawings.footage
        return read_drawn(self._task.clip, num_frames, drawing, detailed=detailed, keys=keys).first(self._task.frames)


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title; write a sheet of attention masks.

    Raises:
        InvalidRequestError: the training set has no identity of the person.
    """
    network = load(task.weights / WEIGHTS)
    actors = Actors(task)
    actor, clip, detailed, bank = actors.actor, actors.clip, actors.detailed, actors.bank
    prior = np.concatenate([np.zeros(network.film_size, np.float32), actor[network.film_size :]])
    embedding = embedding_of(task.weights / WEIGHTS)
    mean = torch.from_numpy(embedding.of(bank.boxes[:: max(1, bank.num_frames // 24)])).mean(dim=0, keepdim=True)

    pairs = [clip.pairs[at] for at in spread_indices(clip)]
    sheet = [[pair.target, attention_of(network, pair, actor)] for pair in pairs]
    draw_sheet(task.folder / f"attention_{clip.name}.png", sheet)

    def ablated(identity: torch.Tensor) -> DrawnClip:
        return detailed_as_keys(DrawnClip(clip, draw_with(network, clip.pairs, prior, identity)))

    return {
        "still mouth": lambda: still_mouth(clip),
        "rendered frame": lambda: base_faces(clip),
        "rendered, detailed": lambda: base_faces(detailed),
        "prior": lambda: actors.served(prior, clip),
        "prior, detailed": lambda: actors.served(prior, detailed),
        PERSONALISED: lambda: actors.served(actor, clip),
        "personalised, detailed": lambda: actors.served(actor, detailed),
        "as the network drew it": lambda: actors.drawn(actor, clip),
        "still picture": actors.still,
        "no actor's items": lambda: actors.served(np.zeros_like(actor), clip),
        "no memory": lambda: ablated(mean),
        "no identity feature": lambda: ablated(torch.zeros_like(mean)),
    }


def _embedding_files(run: Path) -> Sequence[str]:
    return [path.name for suffix in (".onnx", ".safetensors") if (path := run / f"{EMBEDDING}{suffix}").is_file()]


NETWORK: Final[TrainableNetwork] = renderer_network(
    SPEC,
    summary="refines the drawn face of a frame with key pictures and a memory of identity features",
    configs=CONFIGS,
    open_training=open_headpose,
    more_needs=(identity_embedding.NETWORK.name,),
    more_files=_embedding_files,
)
TRAINING: Final = RendererTraining(
    networks=(identity_embedding.NETWORK, mouth_interior.NETWORK, NETWORK), held_out=read_held_out, reenact=reenact
)
