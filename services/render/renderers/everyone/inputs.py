"""Input of the network of `everyone` (Saunders and Namboodiri, Sec. 3.3, Fig. 3 and 4). Training and serving share this module.

Each frame of the window t-1 to t+1 has 17 channels: the footage, whose masked area holds the rasterised features of the neural
texture (16 channels), and the mask. Outside the mask, the first three channels are the footage's RGB and the other channels are 0.
A reference picture of the person, the wanted lips of frame t, and the speech around frame t stand beside them. All are bytes.
Readings and departures:

* The first three features resemble RGB. They are brought to the light of the frame (services.render.colour_match), and the network
  adds a residual to them. Where the mesh covers nothing, as below the jaw, the reference picture in the light of the frame stands.
* Speech is 20 rows of a posteriorgram, t-2 to t+2, where the paper has a mel spectrogram: one person's mel spectrogram says much
  about the voice, and a prior of few people would learn the voices. The rows are one channel, enlarged to the box, because the int8
  file is calibrated with pictures.
* The wanted lips, filled, are not in the paper. A linear expression model of few coefficients does not bring the mesh to the wanted
  lips exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Bool, Float32, UInt8
from services.common.errors import InvalidRequest
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.common.face.neural_texture import NUM_CHANNELS
from services.render.colour_match import match_colour

WINDOW_FRAMES: Final = 3
"""Frames t-1 to t+1 that the network sees, T of the paper."""
_OUTLINE_PX: Final = 5.0
NUM_MORE: Final = NUM_CHANNELS - 3
"""Features behind the first three."""
_FRAME_CHANNELS: Final = NUM_CHANNELS + 1

REFERENCE: Final = slice(0, 3)
"""Channels of the reference picture."""
MORE: Final = slice(8, 8 + NUM_MORE)
"""Channels of frame t that hold the features behind the first three."""
NEIGHBOURS: Final = tuple(
    slice(MORE.stop + place * _FRAME_CHANNELS, MORE.stop + (place + 1) * _FRAME_CHANNELS) for place in range(WINDOW_FRAMES - 1)
)
"""Channels of the frames t-1 and t+1: RGB, further features, mask."""
SPEECH: Final = NEIGHBOURS[-1].stop
"""Channel of the speech."""
PICTURE_CHANNELS: Final = SPEECH + 1
"""Channels of `network_picture`."""


@dataclass(frozen=True, slots=True, eq=False)
class FilledFrame:
    """One frame with features in place of its masked area.

    Attributes:
        base: uint8 [H, W, 3], the footage with the first three features under the mask, in the light of the footage.
        more: uint8 [H, W, 13], further features under the mask, 0 elsewhere.
        mask: uint8 [H, W], lower-face mask.
    """

    base: UInt8
    more: UInt8
    mask: UInt8


def ground_picture(background: UInt8, mask: UInt8, reference: UInt8) -> UInt8:
    """Return the footage with the reference picture, in the light of the footage, under the mask: uint8 [H, W, 3].

    No pixel of the background under the mask is read.

    Args:
        background: uint8 [H, W, 3].
        mask: uint8 [H, W].
        reference: uint8 [H, W, 3].
    """
    return np.where(mask[..., None] > 0, match_colour(reference, background, mask), background)


def filled_frame(ground: UInt8, mask: UInt8, features: UInt8, covered: Bool) -> FilledFrame:
    """Return a frame with features under its mask.

    Args:
        ground: uint8 [H, W, 3], what `ground_picture` returned.
        mask: uint8 [H, W].
        features: uint8 [H, W, 16], rasterised features.
        covered: bool [H, W], where the mesh covers the box.
    """
    face = match_colour(np.ascontiguousarray(features[..., :3]), ground, mask, covered).astype(np.float32)
    base = np.rint(ground + face_weight(covered, mask)[..., None] * (face - ground)).astype(np.uint8)
    shown = (covered & (mask > 0))[..., None]
    return FilledFrame(base, np.where(shown, features[..., 3:], np.uint8(0)), mask)


def face_weight(covered: Bool, mask: UInt8) -> Float32:
    """Return the weight of the features in the base picture: float32 [H, W] in 0..1.

    Inside the mask the weight rises over 5 pixels from the outline of the mesh, so that jaw and neck meet without a line. Outside
    the mask the weight is 0.

    Args:
        covered: bool [H, W], where the mesh covers the box.
        mask: uint8 [H, W].
    """
    outline = _OUTLINE_PX * (len(mask) // BOX_SIZE)
    depth = cv2.distanceTransform(covered.view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(np.where(mask > 0, np.minimum(depth / outline, 1.0), 0.0), np.float32)


def require_forms(features: Float32, speech: Float32, mask: UInt8) -> None:
    """Check the forms of a frame's features.

    Args:
        features: float32 [H, W, 16], rasterised features.
        speech: float32 [20, 40].
        mask: uint8 [H, W].

    Raises:
        InvalidRequest: one of them has another shape.
    """
    wanted = (*mask.shape, NUM_CHANNELS)
    for name, values, shape in (("neural_features", features, wanted), ("speech_features", speech, SPEECH_SHAPE)):
        if values.shape != shape:
            raise InvalidRequest(f"frame.{name}: expected shape {list(shape)}, got {list(values.shape)}", field=f"frame.{name}")


def feature_bytes(features: Float32) -> UInt8:
    """Return features 0..1 as bytes: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(features * 255.0), 0.0, 255.0), dtype=np.uint8)


def speech_channel(speech: Float32, size: int = BOX_SIZE) -> UInt8:
    """Return the speech as a channel of the picture: uint8 [size, size]. Each number fills a block.

    Args:
        speech: float32 [20, 40], probabilities.
        size: side of the render box, pixels.
    """
    rows, classes = SPEECH_SHAPE
    return np.asarray(feature_bytes(speech).repeat(size // rows, axis=0).repeat(size // classes, axis=1))


def network_picture(window: Sequence[FilledFrame], reference: UInt8, lips: UInt8, speech: Float32) -> UInt8:
    """Return the network's input: uint8 [H, W, PICTURE_CHANNELS].

    Reference; base, mask and wanted lips of frame t at the places that services.render.pairs names; further features of t; frames
    t-1 and t+1; speech.

    Args:
        window: frames t-1, t and t+1.
        reference: uint8 [H, W, 3], the reference picture.
        lips: uint8 [H, W], wanted lips of frame t (services.common.face.lip_pictures).
        speech: float32 [20, 40].

    Raises:
        ValueError: another number of frames.
    """
    if len(window) != WINDOW_FRAMES:
        raise ValueError(f"{WINDOW_FRAMES} frames expected, {len(window)} given")
    before, now, after = window
    parts = [reference, now.base, now.mask, lips, now.more]
    for frame in (before, after):
        parts += [frame.base, frame.more, frame.mask]
    return np.dstack([*parts, speech_channel(speech, len(now.mask))])
