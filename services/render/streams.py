"""Models of a serving process, and streams of frames through them. Each method brings a FrameRenderer of its own
(services.render.renderer).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from services.common.array_types import Array, Float32, UInt8
from services.common.errors import ContractBrokenError, InvalidRequestError, ModelNotFoundError
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.common.face.neural_texture import NUM_CHANNELS
from services.render.backends.base import PLAIN_CHOICE, Backend, BackendChoice, BackendName, Device, TritonOptions, default_choice
from services.render.backends.model_files import ModelFile, read_models
from services.render.backends.onnxruntime import OnnxRuntimeBackend
from services.render.renderer import FrameWindow, Renderer, StreamSetup, Window
from services.render.renderers.registry import renderer_named
from services.render.types import ModelInfo, Precision, RenderedFrame, RenderFrame

if TYPE_CHECKING:
    from services.render.backends.triton_healing import TritonMonitor

_log = structlog.stdlib.get_logger("dubstage.render")


def make_backend(
    *,
    device: Device,
    backend: BackendName | None,
    precision: Precision | None,
    num_threads: int,
    triton: TritonOptions | None = None,
    monitor: TritonMonitor | None = None,
) -> Backend:
    """Make the backend that settings ask for. Where settings leave it open, the table's choice for this machine is taken.

    Args:
        device: device that computes networks; with Triton it decides the default precision only.
        backend: name of the runtime; None: the table's choice.
        precision: number format of the arithmetic; None: the table's choice.
        num_threads: threads of one inference in this process. Threads in Triton are set by its model repository.
        triton: options of backend `triton`.
        monitor: receives failures and healings of Triton.

    Raises:
        InvalidRequestError: this machine or the installed build has no such backend or precision, or `triton` is missing.
    """
    if backend == "triton":
        # Triton's client library is imported only where Triton is used.
        from services.render.backends.triton import TritonBackend

        if triton is None:
            raise InvalidRequestError("backend triton needs to know where Triton is", field="DUBSTAGE_TRITON_URL")
        return TritonBackend(triton, precision=precision or PLAIN_CHOICE[device].precision, monitor=monitor)
    choice = default_choice(device) if backend is None or precision is None else BackendChoice(backend, precision)
    if choice.backend == "onnxruntime":
        return OnnxRuntimeBackend(device=device, precision=choice.precision, num_threads=num_threads)
    # OpenVINO takes a second to import, and is imported only where it is used.
    from services.render.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(precision=choice.precision, num_threads=num_threads)


def default_state(model: ModelFile) -> Float32:
    """Return the prior's own state, float32 [S]: zeros, with which the network's layers do what the prior learned."""
    return np.zeros(model.state_size, np.float32)


def open_stream(backend: Backend, model: ModelFile, state: Float32, reference: UInt8 | None = None) -> FrameStream:
    """Open a stream through a loaded model for one actor.

    Args:
        backend: runtime that has `model` loaded.
        state: float32 [S], the actor's state.
        reference: uint8 [H, W, 3], a picture in place of the actor's own reference picture; None: the actor's own.

    Raises:
        ModelNotFoundError: there is no renderer of the model's name.
        InvalidRequestError: the state has another length than the model's.
    """
    renderer = renderer_named(model.name)
    if state.shape != (model.state_size,):
        raise InvalidRequestError(
            f"the actor's state has {state.size} numbers, model {model.name!r} takes {model.state_size}", field="config.actor"
        )
    return FrameStream(backend, renderer, StreamSetup(model=model, state=state, reference=reference))


class FrameStream:
    """One stream of frames through one model for one actor.

    Args:
        backend: runtime that has the model loaded.
        setup: model, actor's state, and the reference picture of the request.
    """

    def __init__(self, backend: Backend, renderer: Renderer, setup: StreamSetup) -> None:
        self._backend, self._model = backend, setup.model
        self._renderer = renderer.open(setup)
        self._window: FrameWindow[Any] = FrameWindow(renderer.spec.frames_before, renderer.spec.frames_after)
        self._sees_neighbours = bool(renderer.spec.frames_before or renderer.spec.frames_after)
        self._frame_inputs = [name for name in renderer.spec.inputs if name != "reference"]

    def render(self, frames: Sequence[RenderFrame]) -> list[RenderedFrame]:
        """Take the next frames, in order; return the pictures of those frames, context left out, whose frames after are known.

        Frames that are context only have no picture. How frames are grouped into calls changes no byte.

        Raises:
            InvalidRequestError: a frame lacks an input that the renderer needs.
        """
        windows: list[Window[Any]] = []
        for frame in frames:
            if frame.context_only and not self._sees_neighbours:
                continue
            for name in self._frame_inputs:
                if getattr(frame, name) is None:
                    raise InvalidRequestError(
                        f"frame.{name} is missing: model {self._model.name!r} needs it", field=f"frame.{name}"
                    )
            windows += self._window.push(frame, self._renderer.prepare(frame))
        return self._drawn(windows)

    def finish(self) -> list[RenderedFrame]:
        """End the stream; return the pictures of frames whose frames after did not come. The last frame stands in for them."""
        return self._drawn(self._window.finish())

    def _drawn(self, windows: list[Window[Any]]) -> list[RenderedFrame]:
        drawn = [window for window in windows if not window.frame.context_only]
        if not drawn:
            return []
        inputs = [self._renderer.network_inputs(window) for window in drawn]
        outputs = infer_frames(self._backend, self._model, [one.inputs for one in inputs], self._renderer.actor_inputs)
        return [
            RenderedFrame(window.frame.frame_index, self._renderer.draw(window, one, computed))
            for window, one, computed in zip(drawn, inputs, outputs, strict=True)
        ]


def infer_frames(
    backend: Backend, model: ModelFile, frames: Sequence[Mapping[str, Array]], actor: Mapping[str, Array]
) -> list[dict[str, Array]]:
    """Compute frames of one actor as one batch; return the outputs of each frame by name.

    Args:
        backend: runtime that has `model` loaded.
        frames: B mappings, B >= 1: arrays by input name, without the batch axis.
        actor: arrays by input name, without the batch axis. They are repeated for each frame.

    Raises:
        ContractBrokenError: the renderer gives no array for an input of the network, or more arrays than inputs.
    """
    given = frames[0].keys() | actor.keys()
    if given != {form.name for form in model.inputs}:
        raise ContractBrokenError(
            f"renderer {model.name!r} gives {sorted(given)}, its network takes {sorted(form.name for form in model.inputs)}"
        )
    inputs = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    inputs |= {name: np.repeat(values[None], len(frames), axis=0) for name, values in actor.items()}
    outputs = backend.infer(model.name, inputs)
    return [{name: values[index] for name, values in outputs.items()} for index in range(len(frames))]


class RenderModels:
    """Models of a folder on one backend. `load` and `load_all` load each model once. Calls from several threads are safe.

    Args:
        folder: folder of the exported networks, and of the weights that personalisation trains with.
        backend: runtime that computes the models.

    Attributes:
        backend: see above.
        folder: see above.
        files: exported networks by name, without those of `unavailable`.
        unavailable: names of the exported networks that the backend could not read, each with the reason and the remedy.

    Raises:
        ModelNotFoundError: a file is missing, or a model has the name of no renderer.
        ArtefactCorruptError: a file is damaged.
    """

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.folder, self.backend = folder, backend
        self.files = read_models(folder, backend.precision)
        self.unavailable: dict[str, str] = {}
        self._renderers = {name: renderer_named(name) for name in self.files}
        self._loaded: set[str] = set()
        self._lock = threading.Lock()

    def load(self, name: str) -> None:
        """Load a model and draw one black frame with the model. A model that the backend cannot read becomes unavailable.

        Args:
            name: name of a model. Nothing happens if it is loaded or unavailable, or if there is no such model.

        Raises:
            BackendUnavailableError: the backend's server does not answer, or the device that was asked for is not there.
            ArtefactCorruptError: a file was replaced after the models were read.
        """
        with self._lock:
            if name in self._loaded or name not in self.files:
                return
            file = self.files[name]
            try:
                self.backend.load(file)
            except ModelNotFoundError as error:
                self._give_up(name, error.message)
                return
            reference = _black(file) if "reference" in self._renderers[name].spec.inputs else None
            stream = open_stream(self.backend, file, default_state(file), reference)
            stream.render([blank_frame(file)])
            stream.finish()
            self._loaded.add(name)

    def is_late(self, name: str) -> bool:
        """Return whether there is a model of this name that `load` has yet to load."""
        return name in self.files and name not in self._loaded

    def load_all(self) -> None:
        """Load all models.

        Raises:
            ModelNotFoundError: the backend can read none of the models.
            BackendUnavailableError: see `load`.
        """
        for name in list(self.files):
            self.load(name)
        if not self.files:
            raise ModelNotFoundError("; ".join(self.unavailable.values()), resource=str(self.folder))

    def info(self) -> list[ModelInfo]:
        """Describe all models, ordered by name. No model is loaded for this."""
        return [
            ModelInfo(
                spec=renderer_named(name).spec,
                sha256=file.sha256,
                backend=self.backend.name,
                precision=self.backend.precision,
                num_threads=self.backend.num_threads,
                box_multiple=file.box_multiple,
            )
            for name, file in sorted(self.files.items())
        ]

    def _give_up(self, name: str, reason: str) -> None:
        backend = self.backend
        _log.error("model_unavailable", model=name, backend=backend.name, precision=str(backend.precision), reason=reason)
        self.unavailable = {**self.unavailable, name: reason}
        # Another thread may iterate over the files before.
        self.files = {other: file for other, file in self.files.items() if other != name}


def blank_frame(model: ModelFile) -> RenderFrame:
    """Return a frame of zeros with every optional input.

    Features that the network takes have the network's forms, other features the forms of neural textures and of speech.
    """
    picture, size = _black(model), model.box_size
    return RenderFrame(
        frame_index=0,
        background=picture,
        texture=picture,
        mask=picture[..., 0],
        box_landmarks=np.zeros((NUM_MOUTH_AREA, 2), np.float32),
        speech_features=np.zeros(model.input_shape("speech_features") or SPEECH_SHAPE, np.float32),
        neural_features=np.zeros(model.input_shape("neural_features") or (size, size, NUM_CHANNELS), np.float32),
    )


def _black(model: ModelFile) -> UInt8:
    return np.zeros((model.box_size, model.box_size, 3), np.uint8)
