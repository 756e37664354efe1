"""Training of the renderer of `everyone`: batches, losses, recipes, held-out clips, re-enactment and export.

The exported file computes the middle frame of the window only.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from research.render.export import RendererExportSpec, picture_and_state
from research.render.held_out import Clip, DrawnClip, HeldOut, TwoParts, base_faces, held_out, still_mouth
from research.render.people import (
    BatchSource,
    ClipSpan,
    People,
    identified_rows,
    person_clips,
    random_colours,
    random_row,
    read_drawing,
)
from research.render.trainer import Drawn, Recipe, Trainer, TrainerInputs, for_a_gpu
from research.render.training import (
    PERSONALISED,
    Reenactment,
    RendererTraining,
    Rows,
    open_perceptual,
    renderer_network,
    trainer_inputs,
)
from research.training.device import Device
from research.training.networks import Opening, TrainableNetwork
from research.training.training import LoopSettings
from research.training.trainset import BoundedCache, TrainSet
from services.common.array_types import Float32, UInt8
from services.common.face.drawing import IdentityDrawing
from services.common.face.mouth_bank import SPEECH_AFTER, SPEECH_BEFORE, SPEECH_SHAPE
from services.common.face.neural_texture import NeuralSurface, sample
from services.render.losses import Features, PatchDiscriminator, adversarial_loss, discriminator_loss, reconstruction_loss
from services.render.networks.weights import save_weights
from services.render.pairs import LIPS, NEAREST_FRAMES, NO_NOISE, Pair
from services.render.renderer import PersonalizeJob
from services.render.renderers.everyone.network import WEIGHTS, EveryoneConfig, EveryoneNetwork, load
from services.render.renderers.everyone.personalize import (
    LOWEST,
    Colours,
    EveryoneWeights,
    TexturedWindow,
    WindowConditions,
    WindowExample,
    as_parameter,
    bank_texture,
    composed_frames,
    personalize_everyone,
    stacked,
    textured_windows,
    window_example,
    with_style,
)
from services.render.renderers.everyone.renderer import (
    PICTURE_CHANNELS,
    REFERENCE_SIZE,
    WINDOW_FRAMES,
    feature_bytes,
    filled_frame,
    network_picture,
    reference_row,
    unpacked,
)

_SILENT_SHARE: Final = 0.15
_GREY_SHARE: Final = 0.04
_FRESH_SHARE: Final = 0.25
_GREY: Final = 128
_SPEECH_CACHE_BYTES: Final = 1 << 28
_NAME = "everyone"
SPEC: Final = RendererExportSpec(
    name="everyone", weights=WEIGHTS, load=load, inputs=picture_and_state(PICTURE_CHANNELS), extra_state=REFERENCE_SIZE
)


def read_speech(data: TrainSet, parts: Sequence[ClipSpan]) -> Float32:
    """Return the speech around the frames that `research.render.people.read_bank` reads: float32 [F, 20, 40].

    The lag of a clip's sound is taken out. Rows outside the sound are zeros.

    Args:
        parts: parts of clips of one person.

    Raises:
        InvalidRequestError: a file is missing or damaged.
    """
    windows = []
    for part in parts:
        usable = np.flatnonzero(data.arrays(part.row, "track", ("usable",))["usable"])[part.first : part.last]
        rows = data.arrays(part.row, "speech", ("posteriorgram",))["posteriorgram"]
        frames = usable[:, None] + part.row.lag_frames + np.arange(-SPEECH_BEFORE, SPEECH_AFTER + 1)
        inside = (frames >= 0) & (frames < len(rows))
        around = np.where(inside[..., None, None], rows[np.clip(frames, 0, len(rows) - 1)], np.float32(0.0))
        windows.append(around.reshape(len(usable), *SPEECH_SHAPE))
    return np.concatenate(windows).astype(np.float32)


def surface_of(drawing: IdentityDrawing) -> NeuralSurface:
    """Return the surface that holds a person's neural texture."""
    return NeuralSurface(drawing.identity, drawing.mesh.model)


def read_surface(data: TrainSet, speaker: str) -> NeuralSurface:
    """Return the surface of a person of a training set. Errors: see research.render.people.read_drawing."""
    return surface_of(read_drawing(data, speaker))


@dataclass(frozen=True, slots=True, eq=False)
class EveryoneWindowBatch:
    """Examples of a pass.

    Attributes:
        windows: the windows, without textures.
        colours: colours that the windows were brought to and the textures are not.
        people: index of each example's person among all people of the training.
        firsts: uint8 [256, 256, 16] each, first textures of these people.
        fresh: whether an example is shown the first texture, as an actor is who was not personalised yet.
    """

    windows: WindowExample
    colours: Colours
    people: tuple[int, ...]
    firsts: tuple[UInt8, ...]
    fresh: tuple[bool, ...]

    @property
    def pictures(self) -> UInt8:
        """Inputs of the network with the first textures in the windows' colours: uint8 [B, 160, 160, PICTURE_CHANNELS]."""
        pictures = []
        for index, texture in enumerate(self.firsts):
            window = WindowExample(*(values[index] for values in _parts(self.windows)))
            pictures.append(pair_of(window, _painted(texture, self.colours, index)).picture)
        return np.stack(pictures)

    @property
    def targets(self) -> UInt8:
        """Frames t of the footage: uint8 [B, 160, 160, 3]."""
        return self.windows.boxes[:, 1]


@dataclass(frozen=True, slots=True, eq=False)
class TexturedPeople:
    """First textures and surfaces of the people, in the order of the people.

    Attributes:
        firsts: uint8 [256, 256, 16] each, first textures.
    """

    data: TrainSet
    surfaces: Sequence[NeuralSurface]
    firsts: Sequence[UInt8]


class EveryoneWindowSource(BatchSource[EveryoneWindowBatch]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        textured: surfaces and first textures of these people.
        seed: random seed.
    """

    def __init__(self, people: People, textured: TexturedPeople, *, seed: int) -> None:
        super().__init__(people, seed=seed)
        self.textured = textured
        self._speech = BoundedCache[tuple[ClipSpan, ...], Float32](
            lambda parts: read_speech(textured.data, parts), lambda speech: speech.nbytes, _SPEECH_CACHE_BYTES
        )

    def batch(self, step: int, index: int, size: int) -> EveryoneWindowBatch:
        """See BatchSource.batch."""
        rng = self._rng(step, index)
        windows, tables, mixings, people, fresh = [], [], [], [], []
        for _ in range(size):
            person = self.people.draw(rng, step)
            bank, row = person.bank, random_row(person.bank, rng)
            # The reference picture must not show the moment that is asked for.
            far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > NEAREST_FRAMES)
            other = bank.boxes[int(rng.choice(far))] if len(far) else np.full_like(bank.boxes[row], _GREY)
            is_grey, is_silent, is_mirrored = rng.random() < _GREY_SHARE, rng.random() < _SILENT_SHARE, rng.random() < 0.5
            colours = random_colours(rng)
            speech = self._speech[self.people.parts(person.number, step)][row]
            look = WindowConditions(
                reference=np.full_like(other, _GREY) if is_grey else other,
                speech=np.zeros(SPEECH_SHAPE, np.float32) if is_silent else speech,
                noise=self._noise,
                seed=int(rng.integers(1 << 31)),
                paint=colours.of,
            )
            window = window_example(bank, row, self.textured.surfaces[person.number], look)
            windows.append(_mirrored(window) if is_mirrored else window)
            tables.append(colours.table.astype(np.float32) / 255.0)
            mixings.append(colours.mixing)
            people.append(person.number)
            fresh.append(bool(rng.random() < _FRESH_SHARE))
        return EveryoneWindowBatch(
            stacked(windows),
            Colours(np.stack(tables), np.stack(mixings)),
            tuple(people),
            tuple(self.textured.firsts[number] for number in people),
            tuple(fresh),
        )


def pair_of(window: WindowExample, texture: UInt8) -> Pair:
    """Return the pair of a window's frame t with a texture, uint8 [256, 256, 16], as serving makes it."""
    frames = [
        filled_frame(ground, mask, feature_bytes(sample(texture, uv)), uv[..., 0] >= 0.0)
        for ground, mask, uv in zip(window.grounds, window.masks, window.uv, strict=True)
    ]
    return Pair(network_picture(frames, window.reference, window.lips, window.speech), window.boxes[1])


def _mirrored(window: WindowExample) -> WindowExample:
    """Return a window seen in a mirror. Texture coordinates keep their values, so the texture is seen in the mirror too."""
    boxes, grounds, masks = (values[:, :, ::-1] for values in (window.boxes, window.grounds, window.masks))
    return WindowExample(
        boxes, grounds, masks, window.uv[:, :, ::-1], window.reference[:, ::-1], window.lips[:, ::-1], window.speech
    )


def _parts(windows: WindowExample) -> tuple[UInt8 | Float32, ...]:
    return windows.boxes, windows.grounds, windows.masks, windows.uv, windows.reference, windows.lips, windows.speech


def _painted(texture: UInt8, colours: Colours, index: int) -> UInt8:
    mixed = np.clip(texture[..., :3] @ colours.mixings[index].T, 0.0, 255.0)
    table = np.rint(colours.tables[index] * 255.0).astype(np.uint8)
    return np.dstack([table[np.rint(mixed).astype(np.uint8)], texture[..., 3:]])


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
        torch_device = device.torch_device
        shown = torch.tensor([[texture.grad is not None for texture in self.people]], dtype=torch.float32, device=torch_device)
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


@dataclass(frozen=True, slots=True, eq=False)
class ActorAppearance:
    """Looks of a person.

    Attributes:
        texture: uint8 [256, 256, 16].
        reference: uint8 [160, 160, 3].
    """

    texture: UInt8
    reference: UInt8


def read_windows(
    clip: Clip, num_frames: int, surface: NeuralSurface, looks: ActorAppearance | None = None, *, silent: bool = False
) -> HeldOut:
    """Return a clip with windows of footage, filled with a texture.

    Args:
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        looks: looks of the actor; None: the first texture and the reference picture of the enrolment part.
        silent: leave the speech out.
    """
    speech = read_speech(clip.data, [ClipSpan(clip.row, 0, clip.row.usable_frames)])
    chosen = looks

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        bank = parts.bank
        chosen = chosen or ActorAppearance(bank_texture(bank, surface, 0), bank.boxes[reference_row(bank)].copy())
        around = np.zeros_like(speech[row]) if silent else speech[row]
        return pair_of(
            window_example(parts.whole, row, surface, WindowConditions(chosen.reference, around, NO_NOISE, 0)), chosen.texture
        )

    return held_out(clip, num_frames, pair)


def read_held_out(clip: Clip, num_frames: int) -> HeldOut:
    """Return a held-out clip with windows for an actor who was not personalised; see research.render.held_out."""
    return read_windows(clip, num_frames, read_surface(clip.data, clip.row.speaker))


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneRecipe(Recipe):
    """Recipe of the prior's training.

    Attributes:
        texture_learning_rate: learning rate of the people's textures (Adam), unit: the full range. It follows the network's rate.
        network: shape of the network.
        weights: weights of the losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=600, seed=20250, check_every=300, bfloat16=True))
    warm_steps: int = 300
    warm_batch: int = 4
    batch: int = 4
    adversarial_learning_rate: float = 4e-4
    texture_learning_rate: float = 1e-2
    network: EveryoneConfig = field(default_factory=EveryoneConfig)
    weights: EveryoneWeights = field(default_factory=EveryoneWeights)


CONFIGS: Final = {
    "default": EveryoneRecipe(),
    # Channels of StyleGAN2 (Karras et al. 2020) at these sizes, and its W of 512 numbers for face and audio each. The batch and the
    # rate are the paper's (Sec. 4).
    "large": for_a_gpu(
        EveryoneRecipe(),
        warm_batch=4,
        batch=4,
        learning_rate=1e-4,
        adversarial_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        network=EveryoneConfig(widths=(256, 512, 512, 512), face_size=512, audio_size=512, audio_widths=(64, 128, 256)),
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class EveryoneWindowDrawn(Drawn):
    """Pictures of one step: three frames of each window, t-1 to t+1.

    Attributes:
        texture_error: scalar, L_reg.
    """

    texture_error: Tensor


class EveryoneTrainer(Trainer[EveryoneRecipe, Any, EveryoneWindowBatch, EveryoneWindowDrawn]):
    """Trainer of the network and of one texture for each person, with a discriminator that sees all frames of a window."""

    more_parts = ("textures", "texture_optimiser")

    def __init__(self, recipe: EveryoneRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = EveryoneNetwork(recipe.network)
        self._frames = recipe.network.frames
        self._discriminator = PatchDiscriminator(3 * self._frames)
        features = _of_served(inputs.features, self._frames)
        super().__init__(recipe, replace(inputs, features=features), network, {"judge": self._discriminator})
        assert isinstance(inputs.source, EveryoneWindowSource)
        self.textures = PersonTextures(inputs.source.textured.firsts).to(self.device.torch_device)
        self.texture_optimiser = torch.optim.Adam(self.textures.parameters(), recipe.texture_learning_rate, betas=(0.9, 0.99))

    def _drawn(self, batch: EveryoneWindowBatch) -> EveryoneWindowDrawn:
        device = self.device.torch_device
        textures = [
            as_parameter(first).detach().to(device) if is_fresh else self.textures.of(number)
            for number, first, is_fresh in zip(batch.people, batch.firsts, batch.fresh, strict=True)
        ]
        seen = textured_windows(batch.windows, textures, device, batch.colours)
        pictures = seen.pictures.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            residuals = self.network.window(pictures, self._default_states(len(textures)))
        lips = seen.pictures[:, LIPS : LIPS + 1].detach()
        drawn = seen if self._frames == WINDOW_FRAMES else _middle(seen)
        return EveryoneWindowDrawn(composed_frames(drawn.bases, residuals.float(), drawn, lips), seen.texture_error)

    def _terms(self, drawn: EveryoneWindowDrawn) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "reconstruction": weights.reconstruction * reconstruction_loss(drawn.composed),
            "texture": weights.texture * drawn.texture_error,
        }

    def _adversarial_terms(self, drawn: EveryoneWindowDrawn, view: Tensor) -> dict[str, Tensor]:
        return {"adversarial": self.recipe.weights.adversarial * adversarial_loss(self._discriminator(self._windows(view)))}

    def _discriminator_losses(self, drawn: EveryoneWindowDrawn, view: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"judge": discriminator_loss(self._discriminator(self._windows(target)), self._discriminator(self._windows(view)))}

    def _after_descent(self, drawings: Sequence[EveryoneWindowDrawn]) -> dict[str, float]:
        """Do the textures' step. Adam leaves textures without a gradient as they are."""
        share = self.optimiser.param_groups[0]["lr"] / (self.recipe.learning_rate * self.optimiser.param_groups[0]["rate_scale"])
        self.textures.exchange(self.device)
        for group in self.texture_optimiser.param_groups:
            group["lr"] = self.recipe.texture_learning_rate * share
        self.texture_optimiser.step()
        self.textures.clamp()
        self.texture_optimiser.zero_grad(set_to_none=True)
        return {}

    def _windows(self, frames: Tensor) -> Tensor:
        """Return frames of windows, stacked along the channels: float [B, 3 T, h, w] from [B T, 3, h, w]."""
        return frames.reshape(-1, 3 * self._frames, *frames.shape[2:])

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `everyone.safetensors`: the network alone, without any person's texture."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())


def _middle(window: TexturedWindow) -> TexturedWindow:
    """Return the frames t of windows: bases, targets and masks have one frame."""
    middle = slice(WINDOW_FRAMES // 2, WINDOW_FRAMES // 2 + 1)
    return window._replace(bases=window.bases[:, middle], targets=window.targets[:, middle], masks=window.masks[:, middle])


def _of_served(features: Features, num_frames: int) -> Features:
    """Return a function that returns features and Gram matrices of the middle frames of windows, which serving draws.

    The paper takes the mean over all frames of the window, at three times the cost.
    """
    both = with_style(features)
    return lambda frames: both(frames[num_frames // 2 :: num_frames])


def open_everyone(opening: Opening) -> EveryoneTrainer:
    """Open a training. People without an identity are left out.

    Raises:
        InvalidRequestError: nobody has an identity, the set has no clip to check with, or the VGG file cannot be used.
        ModelNotFoundError: a weights file is missing.
    """
    recipe, data = opening.config, opening.data
    rows, without = identified_rows(data)
    seed = recipe.loop.seed
    people = People(data, person_clips(rows), recipe.people, seed=seed)
    surfaces = [read_surface(data, clips.name) for clips in people.clips]
    firsts = [bank_texture(people.person(number, 0).bank, surface, seed + 1 + number) for number, surface in enumerate(surfaces)]
    source = EveryoneWindowSource(people, TexturedPeople(data, surfaces, firsts), seed=seed)
    return EveryoneTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_held_out, without=without))


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title.

    Raises:
        InvalidRequestError: the training set has no identity of the person.
    """
    drawing = read_drawing(task.clip.data, task.clip.row.speaker)
    surface = surface_of(drawing)
    bank = read_windows(task.clip, 2, surface).bank
    speech = read_speech(task.clip.data, [ClipSpan(task.clip.row, 0, bank.num_frames)])
    job = PersonalizeJob(bank=replace(bank, speech=speech), drawing=drawing, weights=task.weights, num_threads=task.threads)

    def actor(*, train: bool) -> tuple[Float32, ActorAppearance]:
        started = time.monotonic()
        reports = list(personalize_everyone(replace(job, train=train)))
        losses = ", ".join(f"{report.loss:.2f}" for report in reports)
        print(
            f"{task.clip.row.name}: personalised in {time.monotonic() - started:.0f} s; error in grey levels {losses}", flush=True
        )
        style, reference = unpacked(reports[-1].state)
        assert reports[-1].texture is not None
        return style, ActorAppearance(reports[-1].texture, reference)

    @cache
    def personalised() -> tuple[Float32, ActorAppearance]:
        return actor(train=True)

    def drawn(style: Float32, looks: ActorAppearance, *, silent: bool = False) -> DrawnClip:
        clip = read_windows(task.clip, 0, surface, looks, silent=silent).first(task.frames)
        return DrawnClip(clip, task.draw(_NAME, style, clip.pairs))

    def texture_alone(looks: ActorAppearance) -> DrawnClip:
        return base_faces(read_windows(task.clip, 0, surface, looks).first(task.frames))

    first_style, first = actor(train=False)
    return {
        "still mouth": lambda: still_mouth(read_windows(task.clip, 0, surface, first).first(task.frames)),
        "first texture alone": lambda: texture_alone(first),
        "prior": lambda: drawn(first_style, first),
        PERSONALISED: lambda: drawn(*personalised()),
        "personalised, silent": lambda: drawn(*personalised(), silent=True),
        "texture alone": lambda: texture_alone(personalised()[1]),
        "no offset of W": lambda: drawn(np.zeros_like(first_style), personalised()[1]),
    }


NETWORK: Final[TrainableNetwork] = renderer_network(
    SPEC,
    summary="draws the lower face of a frame from features of the actor's neural texture, a reference picture and speech",
    configs=CONFIGS,
    open_training=open_everyone,
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_held_out, reenact=reenact)
