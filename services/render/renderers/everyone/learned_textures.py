"""Textures as parameters: sampled and shown to the network with gradients. Training and personalisation share this module."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.common.array_types import Float32, UInt8
from services.render.colour_match import match_colour
from services.render.losses import Made
from services.render.networks.tensors import to_tensor
from services.render.renderers.everyone.inputs import face_weight, speech_channel
from services.render.renderers.everyone.pairs import SeenWindow

LOWEST: Final = 1.0 / 255.0
"""Smallest value of a texel. So features are 0 only where there is no face."""
_MOUTH_WEIGHT: Final = 10.0
_LOWER_FACE_WEIGHT: Final = 8.0
_LIP_SPREAD_PX: Final = 13


class Colours(NamedTuple):
    """Colours of a batch of examples (services.render.train.colours), B examples.

    Attributes:
        tables: float32 [B, 256], new level for each level, 0..1.
        mixings: float32 [B, 3, 3], mixture of the channels.
    """

    tables: Float32
    mixings: Float32


class ShownWindow(NamedTuple):
    """What the network is shown of a batch of windows, and what the losses need.

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
    grid = (2.0 * uv - 1.0).reshape(count, frames * height, width, 2)
    made = [
        F.grid_sample(texture[None], grid[place : place + 1], mode="bilinear", padding_mode="border", align_corners=False)
        for place, texture in enumerate(textures)
    ]
    features = torch.cat(made).reshape(count, -1, frames, height, width).transpose(1, 2)
    return features * (uv[:, :, None, ..., 0] >= 0.0)


def shown(
    windows: SeenWindow,
    textures: list[Tensor],
    device: torch.device | None = None,
    colours: Colours | None = None,
    *,
    generator: torch.Generator | None = None,
) -> ShownWindow:
    """Return what the network is shown of windows with textures that learn. inputs.network_picture does the same with bytes.

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
    for place in (0, 2):
        parts += [base[:, place], more[:, place], masks[:, place]]
    pictures = torch.cat([*parts, to_tensor(speech, device)], dim=1)
    return ShownWindow(pictures, base, targets, masks, error)


def made_frames(bases: Tensor, residuals: Tensor, shown_window: ShownWindow, lips: Tensor) -> Made:
    """Return drawn pictures of N frames for the losses, blended into the footage by the soft mask.

    The weights of L1 are those of Sec. 3.4: the mouth ten, the lower face eight times the rest. Nothing is drawn outside the mask,
    so the rest has no part in the loss.

    Args:
        bases: float [B, T, 3, H, W].
        residuals: float [B, T, 3, H, W], outputs of the network for these frames.
        shown_window: targets and masks, of the same T frames.
        lips: float [B, 1, H, W], wanted lips of frame t.
    """
    targets, masks = shown_window.targets.flatten(0, 1), shown_window.masks.flatten(0, 1)
    near = F.avg_pool2d(F.max_pool2d(lips, _LIP_SPREAD_PX, 1, _LIP_SPREAD_PX // 2), _LIP_SPREAD_PX, 1, _LIP_SPREAD_PX // 2)
    near = near.repeat_interleave(bases.shape[1], dim=0)
    drawn = (bases + residuals).flatten(0, 1)
    weights = masks * (_LOWER_FACE_WEIGHT + (_MOUTH_WEIGHT - _LOWER_FACE_WEIGHT) * near)
    return Made(targets + masks * (drawn - targets), targets, masks, weights)


def _face_weights(windows: SeenWindow) -> Float32:
    """Return the weights of the features in the base pictures of B windows: float32 [B, T, 1, H, W]."""
    weights = np.empty((*windows.masks.shape[:2], 1, *windows.masks.shape[2:]), np.float32)
    for place in np.ndindex(*windows.masks.shape[:2]):
        weights[place] = face_weight(windows.uv[place][..., 0] >= 0.0, windows.masks[place])
    return weights


@torch.no_grad()
def _light(rgb: Tensor, windows: SeenWindow) -> Tensor:
    """Return what the light of the frames adds to the first three features: float [B, T, 3, H, W]."""
    levels = (rgb.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
    offsets = np.empty(levels.shape, np.float32)
    for place in np.ndindex(*levels.shape[:2]):
        matched = match_colour(
            np.ascontiguousarray(levels[place]), windows.grounds[place], windows.masks[place], windows.uv[place][..., 0] >= 0.0
        )
        offsets[place] = matched.astype(np.float32) - levels[place]
    return torch.from_numpy(offsets / 255.0).permute(0, 1, 4, 2, 3)


def _recoloured(rgb: Tensor, colours: Colours) -> Tensor:
    """Return features in other colours, float [B, T, 3, H, W], with gradients: the same mixture and the same table of levels."""
    tables = torch.from_numpy(colours.tables).to(rgb.device)
    mixed = torch.einsum("bij,btjhw->btihw", torch.from_numpy(colours.mixings).to(rgb.device), rgb).clamp(0.0, 1.0) * 255.0
    below = mixed.detach().floor().clamp(0, 254).long()
    flat = below.reshape(len(rgb), -1)
    low, high = (tables.gather(1, flat + step).reshape(below.shape) for step in (0, 1))
    return low + (high - low) * (mixed - below)
