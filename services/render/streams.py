"""Streams of frames through a loaded model. What differs between renderers is in their drawers (services.render.drawer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from services.common.array_types import Array, Float32, UInt8
from services.common.errors import ContractBroken, InvalidRequest
from services.render.backends.base import Backend
from services.render.backends.registry import ModelFile
from services.render.frame_window import FrameWindow, Window
from services.render.renderer import Renderer, StreamSetup
from services.render.renderers.registry import renderer_named
from services.render.types import RenderedFrame, RenderFrame


def default_state(model: ModelFile) -> Float32:
    """Return the prior's own state, float32 [S]: zeros, with which the network's layers do what the prior learned."""
    return np.zeros(model.state_size, np.float32)


def open_stream(backend: Backend, model: ModelFile, state: Float32, reference: UInt8 | None = None) -> FrameStream:
    """Open a stream through a loaded model for one actor.

    Args:
        backend: runtime that has `model` loaded.
        model: the exported network.
        state: float32 [S], the actor's state.
        reference: uint8 [H, W, 3], a picture in place of the actor's own reference picture; None: the actor's own.

    Raises:
        ModelNotFound: there is no renderer of the model's name.
        InvalidRequest: the state has another length than the model's.
    """
    renderer = renderer_named(model.name)
    if state.shape != (model.state_size,):
        raise InvalidRequest(
            f"the actor's state has {state.size} numbers, model {model.name!r} takes {model.state_size}", field="actor"
        )
    return FrameStream(backend, renderer, StreamSetup(model=model, state=state, reference=reference))


class FrameStream:
    """One stream of frames through one model for one actor.

    Args:
        backend: runtime that has the model loaded.
        renderer: the model's renderer.
        setup: model, actor's state, and the reference picture of the request.
    """

    def __init__(self, backend: Backend, renderer: Renderer, setup: StreamSetup) -> None:
        self._backend, self._renderer, self._model = backend, renderer, setup.model
        self._drawer = renderer.open(setup)
        self._window: FrameWindow[Any] = FrameWindow(renderer.frames_before, renderer.frames_after)
        self._sees_neighbours = bool(renderer.frames_before or renderer.frames_after)
        self._frame_inputs = [name for name in renderer.inputs if name != "reference"]

    def render(self, frames: Sequence[RenderFrame]) -> list[RenderedFrame]:
        """Take the next frames, in order; return the pictures of wanted frames whose frames after are known.

        Frames that are context only have no picture. How frames are grouped into calls changes no byte.

        Raises:
            InvalidRequest: a frame lacks an input that the renderer needs.
        """
        windows: list[Window[Any]] = []
        for frame in frames:
            if frame.context_only and not self._sees_neighbours:
                continue
            for name in self._frame_inputs:
                if getattr(frame, name) is None:
                    raise InvalidRequest(f"frame.{name} is missing: model {self._model.name!r} needs it", field=f"frame.{name}")
            windows += self._window.push(frame, self._drawer.prepare(frame))
        return self._drawn(windows)

    def finish(self) -> list[RenderedFrame]:
        """End the stream; return the pictures of frames whose frames after did not come. The last frame stands in for them."""
        return self._drawn(self._window.finish())

    def _drawn(self, windows: list[Window[Any]]) -> list[RenderedFrame]:
        wanted = [window for window in windows if not window.frame.context_only]
        if not wanted:
            return []
        shown = [self._drawer.show(window) for window in wanted]
        outputs = infer_frames(self._backend, self._model, [one.inputs for one in shown], self._drawer.actor_inputs)
        return [
            RenderedFrame(window.frame.frame_index, self._drawer.draw(window, one, made), window.frame.mask)
            for window, one, made in zip(wanted, shown, outputs, strict=True)
        ]


def infer_frames(
    backend: Backend, model: ModelFile, frames: Sequence[Mapping[str, Array]], actor: Mapping[str, Array]
) -> list[dict[str, Array]]:
    """Compute frames of one actor as one batch; return the outputs of each frame by name.

    Args:
        backend: runtime that has `model` loaded.
        model: the exported network.
        frames: B mappings, B >= 1: arrays by input name, without the batch axis.
        actor: arrays by input name. An input with a batch axis is repeated for each frame; an input without one is given once.

    Raises:
        ContractBroken: the renderer gives no array for an input of the network, or more arrays than inputs.
    """
    given = frames[0].keys() | actor.keys()
    if given != {form.name for form in model.inputs}:
        raise ContractBroken(
            f"renderer {model.name!r} gives {sorted(given)}, its network takes {sorted(form.name for form in model.inputs)}"
        )
    inputs: dict[str, Array] = {}
    for form in model.inputs:
        if form.name in frames[0]:
            inputs[form.name] = np.stack([frame[form.name] for frame in frames])
        elif form.batched:
            inputs[form.name] = np.repeat(actor[form.name][None], len(frames), axis=0)
        else:
            inputs[form.name] = actor[form.name]
    outputs = backend.infer(model.name, inputs)
    return [{name: values[place] for name, values in outputs.items()} for place in range(len(frames))]
