"""Checks of a renderer's changes inside and outside the mask of a frame."""

from dataclasses import replace

import numpy as np

from services.render.types import RenderedFrame, RenderFrame


def repainted(frame: RenderFrame) -> RenderFrame:
    """Return a frame with another footage where the mask hides the footage."""
    return replace(frame, background=np.where(frame.mask[..., None] > 0, np.uint8(7), frame.background))


def is_background_outside(frame: RenderFrame, made: RenderedFrame) -> bool:
    """Return whether a drawn frame is the footage wherever the mask does not hide the footage."""
    outside = frame.mask == 0
    return np.array_equal(made.box[outside], frame.background[outside])


def skin_error(frame: RenderFrame, made: RenderedFrame) -> float:
    """Return how far the colour of the drawn skin is from the colour around the mask, grey levels."""
    inside = frame.mask == 255
    around = np.median(frame.background[~inside], axis=0)
    return float(np.abs(np.median(made.box[inside].astype(int), axis=0) - around).max())
