"""Fine detail of finished boxes, from what the texture stage answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gateway.methods import TextureInput
from gateway.pipeline.textures import Texture
from gateway.pipeline.window_config import WindowConfig
from services.common.array_types import UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.mouth_detail import with_fitting_interior
from services.common.wire.arrays import from_image


def details_of(config: WindowConfig, textures: Sequence[Texture], boxes: Sequence[UInt8]) -> UInt8:
    """Return the fine detail of finished boxes, uint8 [N, 160 S, 160 S] at S pixels per box pixel (mouth_detail.py).

    Args:
        config: says the scale, and whether the renderer starts from the bank's frames.
        textures: what the texture stage made, N of them.
        boxes: uint8 [160, 160, 3] each, RGB: the finished boxes of the same frames.

    Raises:
        InvalidRequest: a picture of the texture stage has another size.
    """
    side = config.detail_scale * BOX_SIZE
    details = np.empty((len(textures), side, side), np.uint8)
    if not side:
        return details
    for row, texture, box in zip(details, textures, boxes, strict=True):
        assert texture.detail is not None, "the texture stage was asked for detail"
        row[:] = from_image(texture.detail, "detail", channels=1, size=(side, side))
        if config.texture is not TextureInput.WARPED:
            row[:] = with_fitting_interior(row, box, texture.landmarks)
    return details
