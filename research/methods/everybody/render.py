"""Training of the renderer of `everybody`: batches, losses, recipes, held-out clips, re-enactment and export.

Eq. 4 of the paper: L1, LSGAN with gradient penalty against the discriminator of table 8 (at a smaller size), perceptual and total
variation loss, in the units of services/render/losses.py. The discriminator of windows sees six filmed frames and the seventh,
filmed or made. A patch discriminator of single frames sees fine detail, which an average over the picture overlooks.

**Appearance deflicker** (paper `everybody`, App. G, Eq. 7; after Bonneel et al. 2015):

    F(O_t) = (4 pi^2 f^2 F(P_t) + lambda_t F(Warp(O_t-1))) / (4 pi^2 f^2 + lambda_t),        lambda_t = exp(-d_t)

P are drawn pictures, O are the results, F is the Fourier transform, f is the frequency in cycles per pixel, d_t is how far the
mouth's centre moved. Low frequencies come from the frame before, the more so the less the mouth moves. Fine detail comes from the
new frame. The mean (f = 0) comes from the frame before alone, so the pictures given here must not hold changing light: give
differences from a picture that follows the light.

**Teeth proxy** (paper `everybody`, App. F): drawn teeth get the fine detail of the person's own teeth.

Every frame of the footage gives a mask, the polygon of the inner lips, and the texture under the mask. The frame whose mask
overlaps most with the mask of a drawn mouth (intersection over union, mouths aligned by their centres) lends its high
frequencies, as in the teeth proxy of Suwajanakorn et al. 2017. Low frequencies, and with them colour and shading, stay as drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.render.export import RendererExportSpec, picture_and_state
from research.render.held_out import (
    Clip,
    DrawnClip,
    Faces,
    HeldOut,
    TwoParts,
    base_faces,
    blended,
    draw_sheet,
    held_out,
    still_mouth,
)
from research.render.losses import gradient_penalty, reconstruction_terms
from research.render.people import BatchSource, grey_keys, random_colours, random_row
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
from services.common.face.crops import BOX_SIZE
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import STATE_SIZE as KEYS_STATE_SIZE
from services.render.key_pictures import KeyPictures, choose_keys, unpacked
from services.render.losses import (
    PatchDiscriminator,
    RenderLossWeights,
    adversarial_loss,
    compose,
    discriminator_loss,
    discriminator_view,
)
from services.render.networks.weights import save_weights
from services.render.pairs import BASE, NO_NOISE, Pair, window_rows
from services.render.renderer import PersonalizeJob
from services.render.renderers.everybody.network import WEIGHTS, EverybodyConfig, EverybodyNetwork, load
from services.render.renderers.everybody.personalize import WindowView, personalize_everybody, window_pair
from services.render.renderers.everybody.renderer import WINDOW_CHANNELS, WINDOW_FRAMES

_CANDIDATES: Final = (12, 60, 200)
_FAR_FRAMES: Final = 12
_GREY_SHARE: Final = 0.04
_SLOPE: Final = 0.2
_RELU_LEVELS: Final = 2
"""How many of the lowest levels end in a ReLU. All levels above end in a LeakyReLU."""
_FLOW_REACH: Final = cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST
PATCH: Final = (96, 64)
"""Width and height of the patches round the mouth's centre."""
_OUTERMOST: Final = (0, 5, 10, 15)
"""Indices among the outer lips' points: right corner, top, left corner, bottom."""
_DETAIL_SIGMA: Final = 2.5
_FEATHER_SIGMA: Final = 1.0
_MIN_AREA_PX: Final = 120
_MIN_OVERLAP: Final = 0.5
_NAME = "everybody"
SPEC: Final = RendererExportSpec(
    name="everybody", weights=WEIGHTS, load=load, inputs=picture_and_state(WINDOW_CHANNELS), extra_state=KEYS_STATE_SIZE
)


@dataclass(frozen=True, slots=True, eq=False)
class EverybodyWindowBatch:
    """Examples of a pass.

    Attributes:
        pictures: uint8 [B, 160, 160, WINDOW_CHANNELS], inputs of the network.
        targets: uint8 [B, 160, 160, 3], the footage.
        past: uint8 [B, 160, 160, 18], frames t-6 to t-1 of the footage, for the discriminator of windows.
    """

    pictures: UInt8
    targets: UInt8
    past: UInt8


class EverybodyWindowSource(BatchSource[EverybodyWindowBatch]):
    """Draws batches from people, each person as often as their share says."""

    def batch(self, step: int, index: int, size: int) -> EverybodyWindowBatch:
        """See BatchSource.batch."""
        rng = self._rng(step, index)
        drawn = [self._example(rng, self.people.draw(rng, step).bank) for _ in range(size)]
        return EverybodyWindowBatch(*(np.stack(parts) for parts in zip(*drawn, strict=True)))

    def _example(self, rng: np.random.Generator, bank: MouthBank) -> tuple[UInt8, ...]:
        row = random_row(bank, rng)
        # No key picture of the actor may show the moment that is asked for.
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > _FAR_FRAMES)
        keys = grey_keys()
        if len(far) and rng.random() >= _GREY_SHARE:
            keys = choose_keys(bank, np.sort(rng.choice(far, int(rng.choice(_CANDIDATES)))))
        colours, mirror = random_colours(rng), rng.random() < 0.5
        rows = window_rows(bank.frame_index, row, WINDOW_FRAMES)
        boxes = np.stack([colours.of(bank.boxes[index]) for index in rows])
        view = WindowView(rows, boxes, colours.of_keys(keys))
        pair = window_pair(bank, view, self._noise, int(rng.integers(1 << 31)))
        parts = (pair.picture, pair.target, np.dstack(list(boxes[:-1])))
        return tuple(part[:, ::-1] for part in parts) if mirror else parts


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowDiscriminatorConfig:
    """Shape of table 8.

    Attributes:
        frames: RGB frames that the discriminator sees at once.
        widths: channels of E1, E2, ... Each level halves height and width.
        scores: number of scores; the table has one per frame.
    """

    frames: int = 7
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)
    scores: int = 7


class WindowDiscriminator(nn.Module):
    """Discriminator of table 8, which says "real" or "generated" of a window of frames. Least squares (LSGAN), so no sigmoid."""

    def __init__(self, config: WindowDiscriminatorConfig) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1) for before, after in pairwise((3 * config.frames, *config.widths))
        )
        self.output = nn.Linear(config.widths[-1], config.scores)

    def forward(self, frames: Tensor) -> Tensor:
        """Return scores, float [B, scores], of frames, float [B, 3 T, H, W] in [0, 1]."""
        x = frames * 2.0 - 1.0
        for level, encoder in enumerate(self.encoders):
            x = _activated(encoder(x), level, len(self.encoders))
        out: Tensor = self.output(x.mean(dim=(2, 3)))
        return out


def _activated(x: Tensor, level: int, num_levels: int) -> Tensor:
    return F.relu(x) if level >= num_levels - _RELU_LEVELS else F.leaky_relu(x, _SLOPE)


def read_windows(clip: Clip, num_frames: int, keys: KeyPictures | None = None) -> HeldOut:
    """Return a clip with windows of masked frames and heatmaps.

    Args:
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        keys: key pictures of the actor; None: chosen from the enrolment part.
    """
    chosen = keys

    def pair(parts: TwoParts, row: int) -> Pair:
        nonlocal chosen
        chosen = chosen or choose_keys(parts.bank, np.arange(parts.bank.num_frames))
        window = window_rows(parts.whole.frame_index, row, WINDOW_FRAMES)
        return window_pair(parts.whole, WindowView(window, parts.whole.boxes[list(window)], chosen), NO_NOISE, 0)

    return held_out(clip, num_frames, pair)


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyRecipe(Recipe):
    """Recipe of the prior's training.

    Attributes:
        penalty: weight of L_gp.
        penalty_every: steps from one gradient penalty to the next. The penalty counts `penalty_every` times as much instead.
        network: shape of the network.
        windows: shape of the discriminator of windows.
        weights: weights of the other losses.
    """

    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=700, seed=20265, bfloat16=True))
    warm_steps: int = 400
    warm_batch: int = 6
    batch: int = 5
    adversarial_learning_rate: float = 4e-4
    penalty: float = 0.1
    penalty_every: int = 4
    network: EverybodyConfig = field(default_factory=EverybodyConfig)
    windows: WindowDiscriminatorConfig = field(
        default_factory=lambda: WindowDiscriminatorConfig(widths=(32, 64, 96, 128), scores=1)
    )
    weights: RenderLossWeights = field(default_factory=RenderLossWeights)


CONFIGS: Final = {
    "default": EverybodyRecipe(),
    # Channels of the first four levels of the paper's U-Net (table 7), and of the first six levels of its discriminator (table 8):
    # the part of the box that the discriminator sees is too small for a seventh.
    "large": for_a_gpu(
        EverybodyRecipe(),
        network=EverybodyConfig(widths=(64, 128, 256, 512), depths=(2, 2, 2, 4)),
        windows=WindowDiscriminatorConfig(widths=(64, 128, 256, 512, 512, 512), scores=1),
    ),
}


def deflickered(drawn: Float32, warped_before: Float32, moved_px: float) -> Float32:
    """Return O_t of Eq. 7: float32 [H, W, C].

    Args:
        drawn: float32 [H, W, C], P_t.
        warped_before: float32 [H, W, C], Warp(O_t-1).
        moved_px: d_t >= 0, pixels.
    """
    rows, columns = drawn.shape[:2]
    squared = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None] ** 2
    own = (4.0 * np.pi**2 * squared)[..., None]
    before = float(np.exp(-moved_px))
    spectrum = (own * np.fft.rfft2(drawn, axes=(0, 1)) + before * np.fft.rfft2(warped_before, axes=(0, 1))) / (own + before)
    return np.asarray(np.fft.irfft2(spectrum, s=(rows, columns), axes=(0, 1)), dtype=np.float32)


def warped_by_flow(before: Float32, from_picture: UInt8, to_picture: UInt8) -> Float32:
    """Return Warp of Eq. 7: `before`, moved by the optical flow between two drawn pictures (Kroeger et al. 2016): float32 [H, W,
    C].

    Args:
        before: float32 [H, W, C], O_t-1.
        from_picture: uint8 [H, W, 3], P_t-1.
        to_picture: uint8 [H, W, 3], P_t.
    """
    old, new = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (from_picture, to_picture))
    flow = cv2.DISOpticalFlow.create(_FLOW_REACH).calc(new, old, np.zeros((*new.shape, 2), np.float32))
    rows, columns = np.mgrid[: new.shape[0], : new.shape[1]].astype(np.float32)
    moved = cv2.remap(before, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TeethDatabase:
    """Open mouths of one person.

    Attributes:
        masks: bool [N, 64, 96], the inside of the lips.
        textures: uint8 [N, 64, 96, 3].
    """

    masks: npt.NDArray[np.bool_]
    textures: UInt8


def collect_teeth(boxes: UInt8, box_landmarks: Float32) -> TeethDatabase:
    """Return the open mouths among some frames.

    Args:
        boxes: uint8 [F, 160, 160, 3], render boxes.
        box_landmarks: float32 [F, 59, 2], landmarks of these frames, box pixels.
    """
    width, height = PATCH
    masks, textures = [np.zeros((0, height, width), bool)], [np.zeros((0, height, width, 3), np.uint8)]
    for box, points in zip(boxes, box_landmarks, strict=True):
        mask = _patch(lip_pictures(points)[..., 1], points) > 127
        if mask.sum() >= _MIN_AREA_PX:
            masks.append(mask[None])
            textures.append(_patch(box, points)[None])
    return TeethDatabase(np.concatenate(masks), np.concatenate(textures))


def most_similar(mask: npt.NDArray[np.bool_], database: TeethDatabase) -> tuple[int, float]:
    """Return the index of the mask that overlaps most, and the overlap (intersection over union).

    Args:
        mask: bool [64, 96], inside of the lips.
        database: open mouths, at least one.
    """
    both = (database.masks & mask).sum(axis=(1, 2))
    either = (database.masks | mask).sum(axis=(1, 2))
    overlap = both / np.maximum(either, 1)
    best = int(np.argmax(overlap))
    return best, float(overlap[best])


def with_teeth(face: UInt8, box_landmarks: Float32, database: TeethDatabase) -> UInt8:
    """Return the face with the detail of the most similar mouth inside its lips: uint8 [160, 160, 3].

    A mouth that is all but shut stays as it is, and so does a mouth that resembles no mouth of the database.

    Args:
        face: uint8 [160, 160, 3], drawn.
        box_landmarks: float32 [59, 2], landmarks of the face, box pixels.
        database: open mouths of the person.
    """
    mask = _patch(lip_pictures(box_landmarks)[..., 1], box_landmarks) > 127
    if mask.sum() < _MIN_AREA_PX or not len(database.masks):
        return face
    best, overlap = most_similar(mask, database)
    if overlap < _MIN_OVERLAP:
        return face
    texture = database.textures[best].astype(np.float32)
    lent = texture - cv2.GaussianBlur(texture, (0, 0), _DETAIL_SIGMA)
    common = (mask & database.masks[best]).astype(np.float32)
    weight = cv2.erode(common, np.ones((3, 3), np.uint8))
    weight = cv2.GaussianBlur(weight, (0, 0), _FEATHER_SIGMA) * common
    # The inverse of the patch's affine map leads back into the box.
    back = cv2.invertAffineTransform(_to_patch(box_landmarks))
    lent, weight = (cv2.warpAffine(part, back, (BOX_SIZE, BOX_SIZE), flags=cv2.INTER_LINEAR) for part in (lent, weight))
    picture = face.astype(np.float32)
    own = picture - cv2.GaussianBlur(picture, (0, 0), _DETAIL_SIGMA)
    return np.asarray(np.clip(np.rint(picture + weight[..., None] * (lent - own)), 0, 255), dtype=np.uint8)


def _to_patch(points: Float32) -> npt.NDArray[np.float64]:
    """Return the affine map from box pixels to patch pixels, which takes the mean of the lips' four outermost points to the
    middle."""
    middle = points[list(_OUTERMOST)].astype(np.float64).mean(axis=0)
    return np.column_stack([np.eye(2), np.array([(PATCH[0] - 1) / 2, (PATCH[1] - 1) / 2]) - middle])


def _patch(picture: UInt8, points: Float32) -> UInt8:
    moved = cv2.warpAffine(picture, _to_patch(points), PATCH, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.uint8)


def deflicker_clip(clip: HeldOut, faces: Faces) -> Faces:
    """Return faces after Eq. 7, applied to differences from the first key picture, which follows the light of the footage."""
    smoothed: Faces = []
    before: Float32 = np.zeros((1, 1, 3), np.float32)
    for index, (pair, face) in enumerate(zip(clip.pairs, faces, strict=True)):
        first = pair.picture[..., BASE].astype(np.float32)
        difference = face - first
        if index:
            moved = float(np.linalg.norm((clip.landmarks[index] - clip.landmarks[index - 1])[:40].mean(axis=0)))
            difference = deflickered(difference, warped_by_flow(before, faces[index - 1], face), moved)
        before = difference.astype(np.float32)
        smoothed.append(np.clip(np.rint(first + difference), 0, 255).astype(np.uint8))
    return smoothed


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title."""
    bank = read_windows(task.clip, 2).bank
    job = PersonalizeJob(bank=bank, drawing=None, weights=task.weights, num_threads=task.threads)
    film, keys = unpacked(task.last_state(personalize_everybody(job)))
    clip = read_windows(task.clip, 0, keys).first(task.frames)

    @cache
    def personalised() -> DrawnClip:
        return DrawnClip(clip, task.draw(_NAME, film, clip.pairs))

    def with_proxy() -> DrawnClip:
        teeth = collect_teeth(clip.bank.boxes, clip.bank.box_landmarks)
        return DrawnClip(
            clip, [with_teeth(face, points, teeth) for face, points in zip(personalised().faces, clip.landmarks, strict=True)]
        )

    def without_flicker() -> DrawnClip:
        shown = DrawnClip(clip, deflicker_clip(clip, personalised().faces))
        # The sheet has a strip of consecutive frames: flicker is not seen in single frames.
        begin = len(clip.pairs) // 2
        columns = [
            [*(blended(pair, face.astype(np.float32)) for face in faces), pair.target]
            for pair, *faces in list(zip(clip.pairs, personalised().faces, shown.faces, strict=True))[begin : begin + 10]
        ]
        draw_sheet(task.folder / f"deflicker_{clip.name}.png", columns)
        return shown

    return {
        "still mouth": lambda: still_mouth(clip),
        "first key picture": lambda: base_faces(clip),
        "prior": lambda: DrawnClip(clip, task.draw(_NAME, np.zeros_like(film), clip.pairs)),
        PERSONALISED: personalised,
        "teeth proxy": with_proxy,
        "deflicker": without_flicker,
    }


@dataclass(frozen=True, slots=True, eq=False)
class EverybodyWindowDrawn(Drawn):
    """Pictures of one step.

    Attributes:
        past: float [B, 18, h, w], the filmed frames t-6 to t-1, as far as discriminators see them.
    """

    past: Tensor


class EverybodyTrainer(Trainer[EverybodyRecipe, EverybodyNetwork, EverybodyWindowBatch, EverybodyWindowDrawn]):
    """Trainer of the network with a discriminator of frames and a discriminator of windows."""

    def __init__(self, recipe: EverybodyRecipe, inputs: TrainerInputs) -> None:
        torch.manual_seed(recipe.loop.seed)
        network = EverybodyNetwork(recipe.network)
        self._frame = PatchDiscriminator(3)
        self._windows = WindowDiscriminator(recipe.windows)
        super().__init__(recipe, inputs, network, {"frame": self._frame, "windows": self._windows})

    def _drawn(self, batch: EverybodyWindowBatch) -> EverybodyWindowDrawn:
        inputs, targets = self._tensor(batch.pictures), self._tensor(batch.targets)
        with self._autocast():
            residual = self.network(inputs, self._default_states(len(inputs)))
        return EverybodyWindowDrawn(compose(inputs, residual.float(), targets), discriminator_view(self._tensor(batch.past)))

    def _terms(self, drawn: EverybodyWindowDrawn) -> dict[str, Tensor]:
        return reconstruction_terms(drawn.composed, self.recipe.weights)

    def _adversarial_terms(self, drawn: EverybodyWindowDrawn, view: Tensor) -> dict[str, Tensor]:
        weights = self.recipe.weights
        return {
            "frame": weights.frame * adversarial_loss(self._frame(view)),
            "windows": weights.sequence * adversarial_loss(self._windows(torch.cat([drawn.past, view], dim=1))),
        }

    def _discriminator_losses(self, drawn: EverybodyWindowDrawn, view: Tensor, target: Tensor) -> dict[str, Tensor]:
        filmed, generated = (torch.cat([drawn.past, last], dim=1) for last in (target, view))
        return {
            "frame_judge": discriminator_loss(self._frame(target), self._frame(view)),
            "windows_judge": discriminator_loss(self._windows(filmed), self._windows(generated)),
        }

    def _discriminator_penalties(self, drawn: EverybodyWindowDrawn, view: Tensor, target: Tensor, step: int) -> dict[str, Tensor]:
        recipe = self.recipe
        if step % recipe.penalty_every:
            return {}
        filmed, generated = (torch.cat([drawn.past, last], dim=1) for last in (target, view))
        # From the CPU, so that the numbers are the same on every device.
        shares = torch.rand(len(view), 1, 1, 1).to(view.device)
        penalty = gradient_penalty(self._windows, filmed, generated, shares)
        return {"penalty": recipe.penalty * recipe.penalty_every * penalty}

    @property
    def perceptual_weight(self) -> float:
        """See Trainer.perceptual_weight."""
        return self.recipe.weights.perceptual

    def write(self, folder: Path) -> None:
        """Write `everybody.safetensors`."""
        save_weights(folder / WEIGHTS, self.average, self.recipe.network.to_metadata(), **self.facts())


def _open(opening: Opening) -> EverybodyTrainer:
    recipe = opening.config
    source = EverybodyWindowSource(training_people(opening), seed=recipe.loop.seed)
    return EverybodyTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_windows))


NETWORK: Final[TrainableNetwork] = renderer_network(
    SPEC,
    summary="draws the lower face of a frame from landmarks, the frames before, and key pictures of the actor",
    configs=CONFIGS,
    open_training=_open,
)
TRAINING: Final = RendererTraining(networks=(NETWORK,), held_out=read_windows, reenact=reenact)
