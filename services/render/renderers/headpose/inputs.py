"""Input of the network of `headpose`: frames with the drawn face in them (paper `headpose`, Sec. 3.3 and 3.4).

The rendered frame r_t is the footage with the drawn face put into the lower-face mask. What the mesh leaves open there, the inside
of the mouth and the edge to the neck, is filled with the actor's nearest key picture, moved to the wanted landmarks. Three rendered
frames, t-2 to t, are the paper's window; wanted lips and key pictures stand beside them. Training and serving share this module.

An actor of one picture has one key picture for all mouths. Moved that far, the key picture shows its teeth through shut lips, and
its nose below the nose of the frame. The network would draw both. The mesh of the same picture has neither fault, so the rendered
frame stands in for the key pictures, and the key picture gives the inside of the mouth alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from services.common.array_types import Bool, Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.render.colour_match import match_colour
from services.render.key_pictures import KeyPictures, moved_keys, nearest_keys
from services.render.renderers.headpose.mouth_interior import MouthInterior, with_interior

DRAWN_WINDOW: Final = 3
"""Frames t-2 to t that the network sees (paper: a window of three adjacent frames)."""
SHOWN_KEYS: Final = 3
"""Key pictures that the network sees."""
PICTURE_CHANNELS: Final = 3 * SHOWN_KEYS + 3 * DRAWN_WINDOW + 3
"""Channels of `drawn_picture`."""
FIRST_KEY: Final = slice(0, 3)
RENDERED: Final = slice(3, 6)
RENDERED_BEFORE: Final = (slice(9, 12), slice(12, 15))
"""Rendered frames t-1 and t-2."""
OTHER_KEYS: Final = slice(15, PICTURE_CHANNELS)


_SPREAD_PX: Final = 1.5
"""How far the drawn lips are continued into the gap between them, the standard deviation of a Gaussian, box pixels."""
_EDGE_PX: Final = 0.6
"""Softness of the border between drawn lips and the inside of the mouth, the standard deviation of a Gaussian, box pixels."""


def coverage(drawn: UInt8) -> Bool:
    """Return where the drawn face covers the box: bool [H, W]; the drawn face is 0, 0, 0 elsewhere."""
    return np.asarray(drawn.any(axis=-1), dtype=np.bool_)


def rendered_frame(background: UInt8, mask: UInt8, drawn: UInt8, fill: UInt8, covered: Bool | None = None) -> UInt8:
    """Return the rendered frame r_t: uint8 [H, W, 3]. No pixel of the background under the mask is read.

    Args:
        background: uint8 [H, W, 3], the footage.
        mask: uint8 [H, W], its lower-face mask.
        drawn: uint8 [H, W, 3], the drawn face.
        fill: uint8 [H, W, 3], shown where the drawn face covers nothing; in the footage's light.
        covered: bool [H, W]; None: `coverage` of the drawn face.
    """
    shown = coverage(drawn) if covered is None else covered
    face = np.where(shown[..., None], match_colour(drawn, background, mask, shown), fill)
    return np.where(mask[..., None] > 0, face, background)


def still_frame(background: UInt8, mask: UInt8, drawn: UInt8, key: UInt8, lips: UInt8) -> UInt8:
    """Return the rendered frame r_t of an actor of one picture: uint8 [H, W, 3].

    The key picture shows inside the wanted inner lips alone. A gap that the mesh leaves between shut lips gets the colour of the
    lips.

    Args:
        background: uint8 [H, W, 3], the footage. No pixel under the mask is read.
        mask: uint8 [H, W], its lower-face mask.
        drawn: uint8 [H, W, 3], the drawn face.
        key: uint8 [H, W, 3], the key picture, moved to the wanted landmarks and brought to the light of the footage.
        lips: uint8 [H, W, 2], wanted lips and inside of the mouth (services.common.face.lip_pictures).
    """
    multiple = len(mask) // BOX_SIZE
    shown = coverage(drawn)
    gap = ~shown & (lips[..., 0] > 0)
    known = _blurred(np.dstack([drawn, np.where(shown, 255, 0)]).astype(np.float32), _SPREAD_PX * multiple)
    lip = 255.0 * known[..., :3] / np.maximum(known[..., 3:], 1.0)
    whole = np.where(gap[..., None], np.clip(np.rint(lip), 1, 255).astype(np.uint8), drawn)
    face = rendered_frame(background, mask, whole, key, shown | gap)
    inside = _blurred((gap * lips[..., 1]).astype(np.float32), _EDGE_PX * multiple) * (mask > 0) / np.float32(255.0)
    return np.asarray(np.rint(face + inside[..., None] * (key.astype(np.float32) - face)), np.uint8)


def _blurred(picture: Float32, sigma: float) -> Float32:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def shown_keys(
    keys: KeyPictures, background: UInt8, mask: UInt8, box_landmarks: Float32, mean: MouthInterior | None = None
) -> UInt8:
    """Return the key pictures with the nearest lips as the network sees them: uint8 [SHOWN_KEYS, H, W, 3], the nearest first.

    They are moved to the wanted landmarks and brought to the light of the frame's cheeks. Where the key's own mouth is all but shut
    beside the wanted one, the key gets the mean inside of a mouth. No pixel of the background under the mask is read.

    Args:
        keys: key pictures of the actor.
        background: uint8 [H, W, 3], the frame.
        mask: uint8 [H, W], its lower-face mask.
        box_landmarks: float32 [59, 2], its wanted landmarks, box pixels.
        mean: mean open mouth; None: the one that comes with dubstage.
    """
    size = len(mask)
    near = nearest_keys(keys, box_landmarks, size)
    near = KeyPictures(near.pictures[:SHOWN_KEYS], near.landmarks[:SHOWN_KEYS])
    matched = (match_colour(moved, background, mask) for moved in moved_keys(near, box_landmarks, size))
    own = near.landmarks * np.float32(size // BOX_SIZE)
    return np.stack([with_interior(key, points, mask, box_landmarks, mean) for key, points in zip(matched, own, strict=True)])


def keys_shown_in(picture: UInt8) -> UInt8:
    """Return the key pictures that an input of the network shows: uint8 [SHOWN_KEYS, H, W, 3]."""
    keys = [picture[..., FIRST_KEY], *np.split(picture[..., OTHER_KEYS], SHOWN_KEYS - 1, axis=-1)]
    return np.stack(keys)


def drawn_picture(window: Sequence[UInt8], mask: UInt8, lips: UInt8, keys: UInt8) -> UInt8:
    """Return the network's input: uint8 [H, W, PICTURE_CHANNELS].

    First key picture, r_t, mask and wanted lips, as losses.compose expects them, wanted inside of the mouth; r_t-1, r_t-2; then the
    other key pictures.

    Args:
        window: three results of `rendered_frame`, t-2 to t.
        mask: uint8 [H, W], mask of frame t.
        lips: uint8 [H, W, 2], wanted lips and inside of the mouth in frame t (services.common.face.lip_pictures).
        keys: uint8 [SHOWN_KEYS, H, W, 3], moved and matched to frame t, the nearest first.

    Raises:
        ValueError: another number of frames or key pictures.
    """
    if len(window) != DRAWN_WINDOW or len(keys) != SHOWN_KEYS:
        raise ValueError(f"{DRAWN_WINDOW} frames and {SHOWN_KEYS} key pictures expected, {len(window)} and {len(keys)} given")
    return np.dstack([keys[0], window[-1], mask, lips, *window[-2::-1], *keys[1:]])
