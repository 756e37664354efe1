"""The light of a reference picture of another person, brought to a frame's light.

Light multiplies colours: under less light lips get darker by the same share as the skin around them. match_colour, which comes
after, only adds. Adding is enough for pictures of one person in one film. Between a pale picture and a dark frame the added offset
is large, and would take all green and blue from the lips.
"""

from __future__ import annotations

import numpy as np

from services.common.array_types import Float64, UInt8
from services.common.face.crops import BOX_SIZE, CHEEKS_BOTTOM


def in_light_of(picture: UInt8, background: UInt8, mask: UInt8) -> UInt8:
    """Return a picture in the light of a frame: uint8 [H, W, 3].

        frame's skin + min(frame's skin / picture's skin, 1) * (picture - picture's skin),    for each colour channel

    A gain above 1 is not used: it would make blue or orange shine of a highlight on dark skin, and black of stubble.

    Skin is the mean colour of nose and cheeks, which are what lies outside the mask at the height of the cheeks or above. The
    quarter of the brightest and the quarter of the darkest pixels do not count, because they can be hair, glasses or background.
    No pixel of the frame under the mask is read.

    Args:
        picture: uint8 [H, W, 3].
        background: uint8 [H, W, 3], the frame.
        mask: uint8 [H, W], lower-face mask of the frame.
    """
    # Every second pixel is plenty.
    seen = (slice(0, CHEEKS_BOTTOM * len(mask) // BOX_SIZE, 2), slice(None, None, 2))
    rests = mask[seen] == 0
    if not rests.any():
        return picture
    wanted, shown = _middle_colour(background[seen][rests]), _middle_colour(picture[seen][rests])
    gain = np.minimum(wanted / np.maximum(shown, 1.0), 1.0)
    lit = picture * gain.astype(np.float32) + (wanted - gain * shown).astype(np.float32)
    return np.asarray(np.clip(np.rint(lit), 0.0, 255.0), np.uint8)


def _middle_colour(pixels: UInt8) -> Float64:
    """Return the mean of the middle half of each channel, float64 [3], of pixels [N, 3], N >= 1."""
    quarter = len(pixels) // 4
    return np.asarray(np.sort(pixels, axis=0)[quarter : len(pixels) - quarter].mean(axis=0), np.float64)
