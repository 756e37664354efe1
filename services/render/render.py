"""The use case: frames and an actor's state to new lower faces. Each frame depends on itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from services.common.errors import InvalidRequest
from services.render.backends.base import Backend
from services.render.backends.registry import ModelFile
from services.render.features import match_colour, network_picture
from services.render.types import Float32, RenderedFrame, RenderFrame, UInt8

INPUT_PICTURES: Final = "pictures"
INPUT_STATE: Final = "actor_state"
OUTPUT_RESIDUAL: Final = "residual"


def default_state(model: ModelFile) -> Float32:
    """The prior's own state, float32 [S]: zeros, with which the network's layers do what the prior learned."""
    return np.zeros(model.state_size, np.float32)


def render(backend: Backend, model: ModelFile, frames: Sequence[RenderFrame], state: Float32) -> list[RenderedFrame]:
    """Draw the frames' lower faces, in the order given; how frames are grouped into calls changes no byte.

    face = texture + residual(masked background, texture, mask, lips; state)

    Args:
        backend: has `model` loaded.
        model: the refine network.
        frames: B frames, B >= 1, computed as one batch.
        state: float32 [S], the actor's state.

    Raises:
        InvalidRequest: the state has another length than the model's, or a frame has no texture.
    """
    check_state(model, state)
    textures = [match_colour(texture_of(frame), frame.background, frame.mask) for frame in frames]
    pictures = np.stack(
        [
            network_picture(frame.background, texture, frame.mask, frame.box_landmarks)
            for frame, texture in zip(frames, textures, strict=True)
        ]
    )
    states = np.repeat(state[None], len(frames), axis=0)
    residuals = backend.infer(model.name, {INPUT_PICTURES: pictures, INPUT_STATE: states})[OUTPUT_RESIDUAL]
    return [
        RenderedFrame(frame.frame_index, drawn(frame, texture, residual), frame.mask)
        for frame, texture, residual in zip(frames, textures, residuals, strict=True)
    ]


def check_state(model: ModelFile, state: Float32) -> None:
    """Raises InvalidRequest where a state has another length than the model's."""
    if state.shape != (model.state_size,):
        raise InvalidRequest(
            f"the actor's state has {state.size} numbers, model {model.name!r} takes {model.state_size}", field="actor"
        )


def texture_of(frame: RenderFrame) -> UInt8:
    """A frame's warped texture.

    Raises:
        InvalidRequest: it has none.
    """
    if frame.texture is None:
        raise InvalidRequest("frame.texture is missing: this model needs it", field="frame.texture")
    return frame.texture


def drawn(frame: RenderFrame, base: UInt8, residual: Float32) -> UInt8:
    """The picture where the mask is above 0, base and residual added up, and the background elsewhere: uint8 [160, 160, 3]."""
    face = np.clip(np.rint(base + residual), 0.0, 255.0).astype(np.uint8)
    return np.where(frame.mask[:, :, None] > 0, face, frame.background)
