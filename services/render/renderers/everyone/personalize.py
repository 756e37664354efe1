"""Personalisation of `everyone`: the person's neural texture, and an offset of the style vector (Sec. 3.5).

The paper trains a new texture from random numbers and the whole network beside it, and mixes in training data of other people at
a ratio of one to one, so that the network stays general. Here personalisation does not change the network, so that one loaded model
serves all actors, and no data of other people is needed.

The first texture (`first_texture`) has the person's frames, mapped to texture coordinates, in the first three channels, and small
noise in the other channels. The paper begins with random textures; a few frames give the RGB of a new person at once. Texels that
no frame shows get the colours of their surroundings (Gortler et al. 1996, "pull-push").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.common.array_types import Float32, Int64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose
from services.common.face.drawing import lip_pictures
from services.common.face.mouth_bank import SPEECH_SHAPE, MouthBank
from services.common.face.neural_texture import FACE_ROWS, NUM_CHANNELS, TEXTURE_SIZE, NeuralSurface
from services.common.server.call_context import check_not_cancelled
from services.render.backends.base import Device
from services.render.key_pictures import match_colour
from services.render.losses import (
    ComposedPictures,
    Features,
    discriminator_view,
    lip_neighbourhood,
    load_discriminator,
    perceptual_loss,
    reconstruction_loss,
)
from services.render.networks.perceptual import load_perceptual
from services.render.networks.weights import to_tensor
from services.render.pairs import LIPS, NEAREST_FRAMES, LandmarkNoise, spread_rows, target_mouth
from services.render.personalization import SearchDiscriminator, forward_pass, prepare_device, shuffled_batches, step_reports
from services.render.renderer import PersonalizeJob
from services.render.renderers.everyone.network import WEIGHTS, EveryoneNetwork, load
from services.render.renderers.everyone.renderer import (
    face_weight,
    ground_picture,
    packed,
    reference_row,
    speech_channel,
)
from services.render.types import PersonalizeProgress

_LEVELS: Final = 8
_NOISE_LEVELS: Final = 2.0
_MIDDLE: Final = 128.0
_FEWEST: Final = 1e-3
_OUTLINE: Final = np.ones((5, 5), np.uint8)
_FACE_SIGMA: Final = 0.5
_MOUTH_SIGMA: Final = 1.6
"""Blur of colours and weights, texels. A pixel is about one texel wide on the face and two in the mouth, and neighbouring texels
must not show different frames."""
_CERTAIN: Final = 4.0
"""Pixels of a texel from which on only the texel's own colour counts."""
_UNPROJECTED: Final = 32
"""Frames that the first texture is made of."""
_SILENT_SHARE: Final = 0.15
"""Share of the windows whose speech is left out, so that the texture does not rely on speech."""
LOWEST: Final = 1.0 / 255.0
"""Smallest value of a texel. So features are 0 only where there is no face."""
_MOUTH_WEIGHT: Final = 10.0
_LOWER_FACE_WEIGHT: Final = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class WindowExample:
    """Window t-1 to t+1 of footage without its texture, or a batch of windows: then all arrays have a batch axis in front.

    Attributes:
        boxes: uint8 [3, 160, 160, 3], the footage.
        grounds: uint8 [3, 160, 160, 3], the footage with the reference picture under the masks (ground_picture).
        masks: uint8 [3, 160, 160].
        uv: float32 [3, 160, 160, 2], texture coordinates; negative where there is no face.
        reference: uint8 [160, 160, 3].
        lips: uint8 [160, 160], target lips of frame t.
        speech: float32 [20, 40]; zeros: silence or unknown.
    """

    boxes: UInt8
    grounds: UInt8
    masks: UInt8
    uv: Float32
    reference: UInt8
    lips: UInt8
    speech: Float32


@dataclass(frozen=True, slots=True, eq=False)
class WindowConditions:
    """Conditions under which a window is drawn.

    Attributes:
        reference: uint8 [160, 160, 3], the reference picture.
        speech: float32 [20, 40].
        noise: strength of the noise on the target landmarks. All three frames get the same noise, as from a predictor.
        seed: random seed of the noise.
        paint: brings pictures to other colours; None: as filmed.
    """

    reference: UInt8
    speech: Float32
    noise: LandmarkNoise
    seed: int
    paint: Callable[[UInt8], UInt8] | None = None


def rows_around(frame_index: Int64, row: int) -> tuple[int, int, int]:
    """Return the rows of the frames t-1, t and t+1. The frame itself stands in for a missing neighbour.

    Args:
        frame_index: int64 [F], index of each row in the footage.
        row: row of frame t.
    """
    before = row - 1 if row > 0 and frame_index[row] - frame_index[row - 1] == 1 else row
    after = row + 1 if row + 1 < len(frame_index) and frame_index[row + 1] - frame_index[row] == 1 else row
    return before, row, after


def window_example(bank: MouthBank, row: int, surface: NeuralSurface, look: WindowConditions) -> WindowExample:
    """Return the window of a row.

    The expression is solved from the target landmarks, as in serving.

    Args:
        bank: landmarks, poses and pictures of the person.
        row: row of frame t.
        look: reference, speech, noise and colours.
    """
    frames: dict[int, tuple[UInt8, UInt8, UInt8, Float32]] = {}
    rows = rows_around(bank.frame_index, row)
    paint = look.paint or (lambda picture: picture)
    reference = paint(look.reference)
    lips: UInt8 = np.zeros(bank.boxes.shape[1:3], np.uint8)
    for index in rows:
        if index in frames:
            continue
        pose, mask, mouth, points = target_mouth(bank, index, look.noise, look.seed)
        box = paint(bank.boxes[index])
        frames[index] = box, ground_picture(box, mask, reference), mask, surface.uv_of(surface.expression_of(mouth), pose)
        if index == row:
            lips = lip_pictures(points)[..., 0]
    boxes, grounds, masks, uv = (np.stack(parts) for parts in zip(*(frames[index] for index in rows), strict=True))
    return WindowExample(boxes, grounds, masks, uv, reference, lips, look.speech)


def stacked(windows: Sequence[WindowExample]) -> WindowExample:
    """Return a batch of windows."""
    return WindowExample(*(np.stack([getattr(window, each.name) for window in windows]) for each in fields(WindowExample)))


def first_texture(frames: Iterable[tuple[UInt8, Float32]], seed: int) -> UInt8:
    """Return the texture of frames: uint8 [256, 256, 16], 1..255.

    Args:
        frames: pictures, uint8 [160, 160, 3], with texture coordinates, float32 [160, 160, 2] in 0..1, negative where there is no
            face.
        seed: random seed of the noise.
    """
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE, 4), np.float32)
    for picture, uv in frames:
        total += _splat(picture, uv)
    texture = np.empty((TEXTURE_SIZE, TEXTURE_SIZE, NUM_CHANNELS), np.float32)
    # Skin must not run into the mouth, nor the mouth into the skin.
    for rows, sigma in ((slice(0, FACE_ROWS), _FACE_SIGMA), (slice(FACE_ROWS, TEXTURE_SIZE), _MOUTH_SIGMA)):
        texture[rows, :, :3] = _filled(np.asarray(cv2.GaussianBlur(total[rows], (0, 0), sigma), np.float32))
    rng = np.random.default_rng((seed, 2))
    texture[..., 3:] = _MIDDLE + rng.normal(0.0, _NOISE_LEVELS, texture[..., 3:].shape)
    return np.asarray(np.clip(np.rint(texture), 1, 255), dtype=np.uint8)


def _splat(picture: UInt8, uv: Float32) -> Float32:
    """Return colours times weights, and weights: float32 [256, 256, 4]. A pixel counts at its four nearest texels."""
    # At the outline, pixels show the background too.
    covered = cv2.erode((uv[..., 0] >= 0.0).view(np.uint8), _OUTLINE) > 0
    texels = np.clip(uv[covered] * TEXTURE_SIZE - 0.5, 0.0, TEXTURE_SIZE - 1.001)
    corner = texels.astype(np.intp)
    share = texels - corner
    values = np.concatenate([picture[covered].astype(np.float32), np.ones((len(texels), 1), np.float32)], axis=1)
    flat = np.zeros((TEXTURE_SIZE * TEXTURE_SIZE, 4))
    for down in (0, 1):
        for across in (0, 1):
            weight = np.abs(1 - across - share[:, 0]) * np.abs(1 - down - share[:, 1])
            index = (corner[:, 1] + down) * TEXTURE_SIZE + corner[:, 0] + across
            for channel in range(4):
                flat[:, channel] += np.bincount(index, weight * values[:, channel], len(flat))
    return flat.reshape(TEXTURE_SIZE, TEXTURE_SIZE, 4).astype(np.float32)


def _filled(total: Float32) -> Float32:
    """Return colours, float32 [H, W, 3], with empty texels filled from coarser and coarser means."""
    pyramid = [total]
    for _ in range(_LEVELS):
        last = pyramid[-1]
        size = max(1, last.shape[1] // 2), max(1, last.shape[0] // 2)
        # Sums, so that a coarse texel counts as known when one texel below it is known.
        share = last.shape[0] * last.shape[1] / (size[0] * size[1])
        pyramid.append(np.asarray(cv2.resize(last, size, interpolation=cv2.INTER_AREA) * share, np.float32))
    colours: Float32 = np.full((*pyramid[-1].shape[:2], 3), _MIDDLE, np.float32)
    for level in reversed(pyramid):
        size = level.shape[1], level.shape[0]
        coarse = cv2.resize(colours, size, interpolation=cv2.INTER_LINEAR).reshape(*level.shape[:2], 3)
        weight = level[..., 3:]
        certainty = np.minimum(weight / _CERTAIN, 1.0)
        colours = np.asarray(certainty * level[..., :3] / np.maximum(weight, _FEWEST) + (1.0 - certainty) * coarse, np.float32)
    return colours


def bank_texture(bank: MouthBank, surface: NeuralSurface, seed: int) -> UInt8:
    """Return the first texture of a bank's person, uint8 [256, 256, 16], from frames that are evenly spread over the bank.

    Fitted expressions serve if the bank holds them, else the expressions that the landmarks give.

    Args:
        bank: pictures, landmarks and poses of the person.
        seed: random seed of the channels that do not resemble RGB.
    """

    def seen(row: int) -> tuple[UInt8, Float32]:
        check_not_cancelled()
        expression = surface.expression_of(bank.mouth[row]) if bank.expression is None else bank.expression[row]
        return bank.boxes[row], surface.uv_of(expression, HeadPose(1.0, bank.rotation[row], np.zeros(3)))

    return first_texture((seen(int(row)) for row in spread_rows(np.arange(bank.num_frames), _UNPROJECTED)), seed)


def actor_windows(bank: MouthBank, surface: NeuralSurface, count: int, seed: int) -> list[WindowExample]:
    """Return windows of the bank, evenly spread. The reference picture of a window shows another moment, if there is one.

    Args:
        bank: pictures, landmarks and poses of the person.
        count: largest number of windows.
        seed: random seed of noise, references and silence.

    Raises:
        WorkCancelledError: the call that this is done for is over.
    """
    rng = np.random.default_rng((seed, 0))
    own, silence = reference_row(bank), np.zeros(SPEECH_SHAPE, np.float32)
    windows = []
    for row in spread_rows(np.arange(bank.num_frames), count):
        check_not_cancelled()
        far = np.flatnonzero(np.abs(bank.frame_index - bank.frame_index[row]) > NEAREST_FRAMES)
        other = own if own in far or not len(far) else int(rng.choice(far))
        is_silent = bank.speech is None or rng.random() < _SILENT_SHARE
        look = WindowConditions(
            reference=bank.boxes[other],
            speech=silence if is_silent or bank.speech is None else bank.speech[row],
            noise=LandmarkNoise(),
            seed=int(rng.integers(1 << 31)),
        )
        windows.append(window_example(bank, int(row), surface, look))
    return windows


class Colours(NamedTuple):
    """Colours of a batch of examples (research.render.people), B examples.

    Attributes:
        tables: float32 [B, 256], new level for each level, 0..1.
        mixings: float32 [B, 3, 3], mixture of the channels.
    """

    tables: Float32
    mixings: Float32


class TexturedWindow(NamedTuple):
    """Inputs of the network for a batch of windows, and what the losses need.

    Attributes:
        pictures: float [B, PICTURE_CHANNELS, 160, 160].
        bases: float [B, 3, 3, 160, 160], base pictures of the frames t-1, t, t+1.
        targets: float [B, 3, 3, 160, 160], the footage.
        masks: float [B, 3, 1, 160, 160].
        texture_error: scalar, L_reg: mean absolute difference of the first three features and the footage inside the mask.
    """

    pictures: Tensor
    bases: Tensor
    targets: Tensor
    masks: Tensor
    texture_error: Tensor


def as_parameter(texture: UInt8) -> nn.Parameter:
    """Return a texture, uint8 [256, 256, 16], as a parameter: float32 [16, 256, 256] in 0..1."""
    return nn.Parameter(torch.from_numpy(texture.astype(np.float32) / 255.0).permute(2, 0, 1).contiguous())


@torch.no_grad()
def as_bytes(texture: Tensor) -> UInt8:
    """Return a parameter as a texture: uint8 [256, 256, 16], 1..255."""
    levels = (texture.detach().cpu().permute(1, 2, 0).clamp(LOWEST, 1.0) * 255.0).round()
    return np.ascontiguousarray(levels.numpy().astype(np.uint8))


def sampled(textures: list[Tensor], uv: Tensor) -> Tensor:
    """Return the features of windows: float [B, T, 16, H, W], 0 where there is no face.

    Args:
        textures: B tensors, float [16, 256, 256] in 0..1.
        uv: float [B, T, H, W, 2], as services.common.face.neural_texture.sample takes them.
    """
    count, frames, height, width, _ = uv.shape
    if uv.is_cuda:
        rows = [gathered(texture, coordinates) for texture, coordinates in zip(textures, uv.flatten(1, 3), strict=True)]
        features = torch.stack(rows).reshape(count, frames, height, width, -1).permute(0, 1, 4, 2, 3)
    else:
        grid = (2.0 * uv - 1.0).reshape(count, frames * height, width, 2)
        parts = [
            F.grid_sample(texture[None], grid[index : index + 1], mode="bilinear", padding_mode="border", align_corners=False)
            for index, texture in enumerate(textures)
        ]
        features = torch.cat(parts).reshape(count, -1, frames, height, width).transpose(1, 2)
    return features * (uv[:, :, None, ..., 0] >= 0.0)


def gathered(texture: Tensor, uv: Tensor) -> Tensor:
    """Return a texture's features at points, float [N, 16], as grid_sample does, with gradients that repeat their bytes on a GPU.

    On a GPU, the gradient of grid_sample adds with atomic operations; that of an embedding sorts the points before it adds.

    Args:
        texture: float [16, S, S].
        uv: float [N, 2]. Points outside of the texture get the features of its border.
    """
    size = texture.shape[-1]
    position = (uv * size - 0.5).clamp(0.0, size - 1.0)
    first = position.floor().clamp_max(size - 2.0)
    (across, down), (column, row) = (position - first).unbind(-1), first.long().unbind(-1)
    texels = torch.stack([(row + below) * size + column + right for below in (0, 1) for right in (0, 1)], dim=-1)
    weights = torch.stack([share * part for share in (1.0 - down, down) for part in (1.0 - across, across)], dim=-1)
    return (F.embedding(texels, texture.flatten(1).T) * weights[..., None]).sum(dim=1)


def textured_windows(
    windows: WindowExample,
    textures: list[Tensor],
    device: torch.device | None = None,
    colours: Colours | None = None,
    *,
    generator: torch.Generator | None = None,
) -> TexturedWindow:
    """Return the inputs of the network for windows with textures that learn. network_picture does the same with bytes.

    The features behind the first three get noise of one level in place of rounding, so that a texture stays good when it is stored
    as bytes. The light of the frame is added as a constant.

    Args:
        windows: a batch of B windows.
        textures: B textures, float [16, 256, 256] in 0..1, on the device.
        device: device of the tensors; None: the CPU.
        colours: colours that the windows were brought to and the textures were not; None: as filmed.
        generator: source of the noise, on the CPU; None: the generator of the process.
    """
    count = len(windows.boxes)

    def frames(pictures: UInt8) -> Tensor:
        flat = to_tensor(pictures.reshape(-1, *pictures.shape[2:]), device)
        return flat.reshape(count, -1, *flat.shape[1:])

    uv = torch.from_numpy(windows.uv).to(device)
    covered = uv[:, :, None, ..., 0] >= 0.0
    features = sampled(textures, uv)
    rgb = features[:, :, :3] if colours is None else _recoloured(features[:, :, :3], colours)
    # From the CPU, so that the numbers are the same on every device.
    features = features + (torch.rand(features.shape, generator=generator).to(features.device) - 0.5) / 255.0
    masks, targets, grounds = frames(windows.masks[..., None]), frames(windows.boxes), frames(windows.grounds)
    inside = covered & (masks > 0.0)
    weight = torch.from_numpy(_face_weights(windows)).to(rgb.device)
    faces = rgb + _light(rgb, windows).to(rgb.device)
    base = grounds + weight * (faces - grounds)
    more = torch.where(inside, features[:, :, 3:], features.new_zeros(()))
    error = ((rgb - targets).abs() * inside).sum() / (3.0 * inside.sum()).clamp_min(1.0)
    speech = np.stack([speech_channel(each) for each in windows.speech])[..., None]
    parts = [to_tensor(windows.reference, device), base[:, 1], masks[:, 1], to_tensor(windows.lips[..., None], device), more[:, 1]]
    for frame in (0, 2):
        parts += [base[:, frame], more[:, frame], masks[:, frame]]
    pictures = torch.cat([*parts, to_tensor(speech, device)], dim=1)
    return TexturedWindow(pictures, base, targets, masks, error)


def composed_frames(bases: Tensor, residuals: Tensor, shown_window: TexturedWindow, lips: Tensor) -> ComposedPictures:
    """Return drawn pictures of N frames for the losses, blended into the footage by the soft mask.

    The weights of L1 are those of Sec. 3.4: the mouth ten, the lower face eight times the rest. Nothing is drawn outside the mask,
    so the rest has no part in the loss.

    Args:
        bases: float [B, T, 3, H, W].
        residuals: float [B, T, 3, H, W], outputs of the network for these frames.
        shown_window: targets and masks, of the same T frames.
        lips: float [B, 1, H, W], target lips of frame t.
    """
    targets, masks = shown_window.targets.flatten(0, 1), shown_window.masks.flatten(0, 1)
    near = lip_neighbourhood(lips).repeat_interleave(bases.shape[1], dim=0)
    drawn = (bases + residuals).flatten(0, 1)
    weights = masks * (_LOWER_FACE_WEIGHT + (_MOUTH_WEIGHT - _LOWER_FACE_WEIGHT) * near)
    return ComposedPictures(targets + masks * (drawn - targets), targets, masks, weights)


def _face_weights(windows: WindowExample) -> Float32:
    """Return the weights of the features in the base pictures of B windows: float32 [B, T, 1, H, W]."""
    weights = np.empty((*windows.masks.shape[:2], 1, *windows.masks.shape[2:]), np.float32)
    for index in np.ndindex(*windows.masks.shape[:2]):
        weights[index] = face_weight(windows.uv[index][..., 0] >= 0.0, windows.masks[index])
    return weights


@torch.no_grad()
def _light(rgb: Tensor, windows: WindowExample) -> Tensor:
    """Return what the light of the frames adds to the first three features: float [B, T, 3, H, W]."""
    levels = (rgb.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
    offsets = np.empty(levels.shape, np.float32)
    for index in np.ndindex(*levels.shape[:2]):
        matched = match_colour(
            np.ascontiguousarray(levels[index]), windows.grounds[index], windows.masks[index], windows.uv[index][..., 0] >= 0.0
        )
        offsets[index] = matched.astype(np.float32) - levels[index]
    return torch.from_numpy(offsets / 255.0).permute(0, 1, 4, 2, 3)


def _recoloured(rgb: Tensor, colours: Colours) -> Tensor:
    """Return features in other colours, float [B, T, 3, H, W], with gradients: the same mixture and the same table of levels."""
    tables = torch.from_numpy(colours.tables).to(rgb.device)
    mixed = torch.einsum("bij,btjhw->btihw", torch.from_numpy(colours.mixings).to(rgb.device), rgb).clamp(0.0, 1.0) * 255.0
    below = mixed.detach().floor().clamp(0, 254).long()
    flat = below.reshape(len(rgb), -1)
    low, high = (tables.gather(1, flat + step).reshape(below.shape) for step in (0, 1))
    return low + (high - low) * (mixed - below)


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryoneWeights:
    """Weights of Eq. 1: the paper has lambda_1 = 10, lambda_VGG = 10, lambda_reg = 5, lambda_adv = 1.

    The paper's L_VGG is in units of VGG's features. Here the features of each stage have the mean 1 (services/render/losses.py), so
    a weight of 2, over features and Gram matrices, gives gradients as large as those of the other losses.

    Attributes:
        reconstruction: weight of L1, with weights by region.
        perceptual: weight of L_VGG, the mean over features and Gram matrices.
        texture: weight of L_reg, which makes the first three channels resemble RGB.
        adversarial: weight of the LSGAN loss.
    """

    reconstruction: float = 10.0
    perceptual: float = 2.0
    texture: float = 5.0
    adversarial: float = 1.0


def with_style(features: Features) -> Features:
    """Return a function that returns features and, behind them, their Gram matrices, float [B, C, C] each.

    So the mean of services.render.losses.perceptual_loss has the feature loss and the style loss, with equal weights.

    Args:
        features: returns features of several scales.
    """

    def both(pictures: Tensor) -> Sequence[Tensor]:
        maps = features(pictures)
        return [*maps, *(_gram(one) for one in maps)]

    return both


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(2).float()
    return torch.bmm(flat, flat.transpose(1, 2)) / flat.shape[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextureRecipe:
    """Settings of the search.

    Attributes:
        num_steps: steps of the optimiser, unless a job gives a number.
        batch_size: windows per step.
        num_windows: windows that are made before the search, spread over the bank.
        learning_rate: learning rate of the texture (Adam), unit: the full range. It falls to a tenth by half a cosine.
        style_learning_rate: learning rate of the offset of W, which falls too.
        network_learning_rate: learning rate of the network's weights, which falls too. 0: the network stays as it is, as one loaded
            model for all actors must. The measurement of the prior's gain trains the network.
        discriminator_learning_rate: learning rate of the discriminator of frames.
        average_decay: decay of the moving averages of texture and offset. The averages are the result.
        report_every: steps between reports.
        weights: weights of the losses. The adversarial loss counts little: a discriminator that has seen ten seconds of one person
            would soon be fooled by pictures that fool no viewer.
    """

    num_steps: int = 70
    batch_size: int = 4
    num_windows: int = 120
    learning_rate: float = 4e-3
    style_learning_rate: float = 5e-3
    network_learning_rate: float = 0.0
    discriminator_learning_rate: float = 5e-4
    average_decay: float = 0.9
    report_every: int = 2
    weights: EveryoneWeights = field(default_factory=lambda: EveryoneWeights(adversarial=0.08))


@dataclass(frozen=True, slots=True, eq=False)
class SearchProgress:
    """One report of the search.

    Attributes:
        step: steps done.
        loss: mean absolute error inside the mask since the last report, grey levels.
        style: float32 [S], offset of W.
        texture: uint8 [256, 256, 16].
    """

    step: int
    loss: float
    style: Float32
    texture: UInt8


class TextureSearch:
    """Optimisation of one texture and one offset of W.

    Args:
        network: the prior.
        texture: uint8 [256, 256, 16], the first texture.
        num_steps: steps of the optimiser.
        weights: folder with the perceptual network and the discriminator of frames.
        device: device of the search.

    Raises:
        ModelNotFoundError: a weights file is missing.
    """

    def __init__(
        self,
        network: EveryoneNetwork,
        texture: UInt8,
        recipe: TextureRecipe,
        num_steps: int,
        weights: Path,
        device: Device = "cpu",
    ) -> None:
        self._network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._features = with_style(load_perceptual(weights / "perceptual.safetensors").to(device).features)
        self._discriminator = SearchDiscriminator(
            load_discriminator(weights / "frame_discriminator.safetensors"), recipe.discriminator_learning_rate, device
        )
        self._recipe, self._num_steps = recipe, num_steps
        self._texture = nn.Parameter(as_parameter(texture).detach().to(device))
        self._style = nn.Parameter(network.default_state().to(device))
        self._average = [part.detach().clone() for part in (self._texture, self._style)]
        groups: list[dict[str, Any]] = [
            {"params": [self._texture], "lr": recipe.learning_rate},
            {"params": [self._style], "lr": recipe.style_learning_rate},
        ]
        if recipe.network_learning_rate:
            groups.append({"params": list(network.requires_grad_(True).parameters()), "lr": recipe.network_learning_rate})
        self._optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._noise = torch.Generator()
        falling = lambda step: 0.1 + 0.9 * 0.5 * (1.0 + np.cos(np.pi * step / num_steps))  # noqa: E731
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, falling)

    def run(self, windows: Sequence[WindowExample], seed: int) -> Iterator[SearchProgress]:
        """Run all steps, each on a batch of the windows in random order; yield progress.

        Raises:
            WorkCancelledError: the call that this is done for is over. The search looks before every step.
        """
        # The search has a random generator of its own: searches of other calls take turns with this one.
        self._noise.manual_seed(seed)
        rng = np.random.default_rng((seed, 1))
        batches = shuffled_batches(len(windows), self._recipe.batch_size, self._num_steps, rng)
        losses = (self.step([windows[index] for index in chosen]) for chosen in batches)
        for report in step_reports(losses, self._num_steps, self._recipe.report_every):
            texture, style = self._average
            yield SearchProgress(report.step, report.loss, style.cpu().numpy().copy(), as_bytes(texture))

    def step(self, windows: Sequence[WindowExample]) -> float:
        """Do one step on a batch; return the mean absolute error inside the mask, grey levels."""
        weights = self._recipe.weights
        textures: list[Tensor] = [self._texture] * len(windows)
        seen = textured_windows(stacked(windows), textures, torch.device(self._device), generator=self._noise)
        pictures = seen.pictures.contiguous(memory_format=torch.channels_last)
        with forward_pass(self._device):
            residual = self._network(pictures, self._style.expand(len(windows), -1))
        middle = slice(1, 2)
        now = seen._replace(targets=seen.targets[:, middle], masks=seen.masks[:, middle])
        composed = composed_frames(
            seen.bases[:, middle], residual.float()[:, None], now, seen.pictures[:, LIPS : LIPS + 1].detach()
        )
        drawn, target = discriminator_view(composed.pictures), discriminator_view(composed.target)
        reconstruction = reconstruction_loss(composed)
        loss = weights.reconstruction * reconstruction + weights.texture * seen.texture_error
        with forward_pass(self._device):
            adversarial = self._discriminator.fooled(drawn)
            loss = loss + weights.perceptual * perceptual_loss(self._features, drawn, target) + weights.adversarial * adversarial
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.float())
        self._optimiser.step()
        self._schedule.step()
        with torch.no_grad():
            self._texture.clamp_(LOWEST, 1.0)
            for average, part in zip(self._average, (self._texture, self._style), strict=True):
                average.lerp_(part, 1.0 - self._recipe.average_decay)
        self._discriminator.learn(target, drawn)
        return float(reconstruction.detach()) * 255.0


def personalize_everyone(job: PersonalizeJob, recipe: TextureRecipe = TextureRecipe()) -> Iterator[PersonalizeProgress]:
    """Find the texture and the state of the bank's person; yield progress. The last report holds the result.

    The state is the offset of W and the reference picture. The result is the same for the same seed, device and
    number of threads.

    Args:
        job: the bank, what draws the person, the prior's weights and settings. `train=False` skips the search: the only report, of
            step 0 of 0, holds the first texture and no offset. So does a bank of one frame, which has nothing to learn from.
        recipe: settings of the search.

    Raises:
        WorkCancelledError: the call that this is done for is over.
        InvalidRequestError: the expressions of the bank are of another model than the identity.
        ModelNotFoundError: a weights file is missing.
        BackendUnavailableError: PyTorch cannot compute on the job's device.
    """
    torch.set_num_threads(job.num_threads)
    assert job.drawing is not None  # the renderer declares needs_identity
    bank = job.bank
    network = load(job.weights / WEIGHTS)
    model = job.drawing.mesh.model
    if bank.expression is not None and bank.expression.shape[1] != model.num_expression:
        raise InvalidRequestError(
            f"the bank has {bank.expression.shape[1]} expression coefficients a frame, and the identity's model has "
            f"{model.num_expression}: build the bank with coefficients of the identity's model",
            field="bank",
        )
    surface = NeuralSurface(job.drawing.identity, model)
    reference = bank.boxes[reference_row(bank)]
    texture = bank_texture(bank, surface, job.seed)
    steps = job.num_steps or recipe.num_steps
    if not job.train or bank.num_frames == 1 or not steps:
        yield PersonalizeProgress(0, 0, 0.0, packed(network.default_state().numpy(), reference), texture)
        return
    windows = actor_windows(bank, surface, recipe.num_windows, job.seed)
    device = prepare_device(job.device)
    search = TextureSearch(network, texture, recipe, steps, job.weights, device)
    for progress in search.run(windows, job.seed):
        state = packed(progress.style, reference)
        yield PersonalizeProgress(progress.step, steps, progress.loss, state, progress.texture)
