"""Streams of frames through a loaded model: what differs between the models is here, and nothing of transport.

`ugc` draws each frame by itself. `everybody` sees a window of seven frames, so its stream remembers six; `headpose` three, so two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from services.render.backends.base import Backend
from services.render.backends.registry import ModelFile
from services.render.detail import with_detail
from services.render.drawn_face import DRAWN_WINDOW, drawn_picture, rendered_frame, shown_keys
from services.render.features import lip_pictures
from services.render.heatmaps import WINDOW_FRAMES, frame_channels, window_picture
from services.render.key_pictures import matched_keys, unpacked
from services.render.render import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, check_state, drawn, render, texture_of
from services.render.types import Float32, RenderedFrame, RenderFrame, UInt8

EVERYBODY: Final = "everybody"
"""Name of the model that sees windows of landmarks."""
HEADPOSE: Final = "headpose"
"""Name of the model that sees windows of drawn faces."""


class FrameStream(Protocol):
    """One stream through a model."""

    def render(self, frames: Sequence[RenderFrame]) -> list[RenderedFrame]:
        """Draw the next frames, in order; those that are context only have no answer. Grouping changes no byte."""


def open_stream(backend: Backend, model: ModelFile, state: Float32) -> FrameStream:
    """A stream through a loaded model for one actor.

    Args:
        backend: has `model` loaded.
        model: the network.
        state: float32 [S], the actor's state.

    Raises:
        InvalidRequest: the state has another length than the model's.
    """
    check_state(model, state)
    kinds: dict[str, Callable[[Backend, ModelFile, Float32], FrameStream]] = {EVERYBODY: WindowStream, HEADPOSE: DrawnStream}
    return kinds.get(model.name, SingleStream)(backend, model, state)


class SingleStream:
    """Every frame by itself (services.render.render)."""

    def __init__(self, backend: Backend, model: ModelFile, state: Float32) -> None:
        self._backend, self._model, self._state = backend, model, state

    def render(self, frames: Sequence[RenderFrame]) -> list[RenderedFrame]:
        """See FrameStream.render.

        Raises:
            InvalidRequest: a frame has no texture.
        """
        wanted = [frame for frame in frames if not frame.context_only]
        return render(self._backend, self._model, wanted, self._state) if wanted else []


class WindowStream:
    """Every frame with the six before it: `everybody`. After a gap and at the beginning the first frame stands in for its past."""

    def __init__(self, backend: Backend, model: ModelFile, state: Float32) -> None:
        self._backend, self._model = backend, model
        self._film, self._keys = unpacked(state)
        self._window: list[UInt8] = []
        self._next = 0

    def render(self, frames: Sequence[RenderFrame]) -> list[RenderedFrame]:
        """See FrameStream.render.

        face = first key picture + residual(window of masked footage and heatmaps, mask, key pictures; FiLM state)
        """
        wanted, pictures = [], []
        for frame in frames:
            self._push(frame)
            if frame.context_only:
                continue
            keys = matched_keys(self._keys, frame.background, frame.mask, frame.box_landmarks)
            wanted.append((frame, keys[0]))
            pictures.append(window_picture(self._window, frame.mask, keys))
        if not wanted:
            return []
        inputs: dict[str, npt.NDArray[Any]] = {
            INPUT_PICTURES: np.stack(pictures),
            INPUT_STATE: np.repeat(self._film[None], len(wanted), axis=0),
        }
        residuals = self._backend.infer(self._model.name, inputs)[OUTPUT_RESIDUAL]
        return [
            RenderedFrame(frame.frame_index, drawn(frame, key, residual), frame.mask)
            for (frame, key), residual in zip(wanted, residuals, strict=True)
        ]

    def _push(self, frame: RenderFrame) -> None:
        channels = frame_channels(frame.background, frame.mask, frame.box_landmarks, frame.frame_index)
        follows = bool(self._window) and frame.frame_index == self._next
        self._window = [*self._window[1:], channels] if follows else [channels] * WINDOW_FRAMES
        self._next = frame.frame_index + 1


class DrawnStream:
    """Every frame with the two before it: `headpose`. After a gap and at the beginning the first frame stands in for its past."""

    def __init__(self, backend: Backend, model: ModelFile, state: Float32) -> None:
        self._backend, self._model = backend, model
        self._actor, self._keys = unpacked(state)
        self._window: list[UInt8] = []
        self._next = 0

    def render(self, frames: Sequence[RenderFrame]) -> list[RenderedFrame]:
        """See FrameStream.render.

        face = rendered frame + residual(window of rendered frames, mask, wanted lips, key pictures; FiLM state, memory items),
        then its detail as strong as the key pictures' (services.render.detail)

        Raises:
            InvalidRequest: a frame has no texture, the drawn face.
        """
        wanted, pictures = [], []
        for frame in frames:
            keys = shown_keys(self._keys, frame.background, frame.mask, frame.box_landmarks)
            self._push(frame, keys)
            if frame.context_only:
                continue
            wanted.append((frame, self._window[-1], keys))
            pictures.append(drawn_picture(self._window, frame.mask, lip_pictures(frame.box_landmarks), keys))
        if not wanted:
            return []
        inputs: dict[str, npt.NDArray[Any]] = {
            INPUT_PICTURES: np.stack(pictures),
            INPUT_STATE: np.repeat(self._actor[None], len(wanted), axis=0),
        }
        residuals = self._backend.infer(self._model.name, inputs)[OUTPUT_RESIDUAL]
        return [
            RenderedFrame(frame.frame_index, with_detail(drawn(frame, rendered, residual), keys, frame.mask), frame.mask)
            for (frame, rendered, keys), residual in zip(wanted, residuals, strict=True)
        ]

    def _push(self, frame: RenderFrame, keys: UInt8) -> None:
        rendered = rendered_frame(frame.background, frame.mask, texture_of(frame), keys[0])
        follows = bool(self._window) and frame.frame_index == self._next
        self._window = [*self._window[1:], rendered] if follows else [rendered] * DRAWN_WINDOW
        self._next = frame.frame_index + 1
