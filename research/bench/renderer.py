"""Time of the render stage: one network alone on every backend, and every model as a dub uses it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.errors import DubstageError
from services.render.backends.base import BACKEND_CHOICES, Backend, default_choice
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, WEIGHTS_FOLDER, read_models
from services.render.renderers.registry import renderer_named
from services.render.streams import blank_frame, default_state, load_models, make_backend, open_stream

_RUNS: Final = 40


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """One row: the time of the network alone, one frame per run on one thread.

    Attributes:
        backend: name of the runtime.
        precision: number format of the arithmetic.
        ms_per_frame: wall time per frame, milliseconds.
        cpu_ms_per_frame: processor time per frame, milliseconds.
        default: whether a dub uses this backend unless settings name another.
    """

    backend: str
    precision: str
    ms_per_frame: float
    cpu_ms_per_frame: float
    default: bool


@dataclass(frozen=True, slots=True)
class ModelTime:
    """One row: the processor time of a model on the default backend, one frame per call on one thread.

    Attributes:
        model: name of the model.
        network_ms: time of the network alone per frame, milliseconds.
        frame_ms: time per frame with everything before and after the network, milliseconds: masks, heatmaps, key pictures, windows,
            colours.
    """

    model: str
    network_ms: float
    frame_ms: float


class _Watched:
    """Backend that adds up the processor time of its inferences."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.cpu_s = 0.0

    def infer(self, model: str, inputs: dict[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.float32]]:
        """Compute as the backend does."""
        begin = time.process_time()
        outputs = self._backend.infer(model, inputs)
        self.cpu_s += time.process_time() - begin
        return outputs


def measure_models(runs: int = _RUNS) -> tuple[ModelTime, ...]:
    """Measure every installed model on consecutive frames of noise with a mask over the lower face."""
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    models = load_models(WEIGHTS_FOLDER, backend)
    generator = np.random.default_rng(0)
    angles = np.linspace(0.0, 2.0 * np.pi, 59, endpoint=False)
    lips = np.stack([80.0 + 35.0 * np.cos(angles), 64.0 + 15.0 * np.sin(angles)], 1).astype(np.float32)
    rows: list[ModelTime] = []
    for name, model in sorted(models.files.items()):
        watched, side, multiple = _Watched(backend), model.box_size, model.box_multiple
        pictures = generator.integers(1, 256, (2, side, side, 3), dtype=np.uint8)
        mask = np.zeros((side, side), np.uint8)
        mask[36 * multiple : 144 * multiple, 24 * multiple : 136 * multiple] = 255
        blank = replace(
            blank_frame(model), background=pictures[0], texture=pictures[1], mask=mask, box_landmarks=lips * np.float32(multiple)
        )
        stream = open_stream(watched, model, default_state(model), pictures[1])  # type: ignore[arg-type]  # streams call infer only
        # The first frame is answered when its frames after have come. From then on, each frame that comes answers one.
        before = 1 + renderer_named(name).spec.frames_after
        frames = [replace(blank, frame_index=index) for index in range(before + runs)]
        stream.render(frames[:before])
        watched.cpu_s, begin = 0.0, time.process_time()
        for frame in frames[before:]:
            stream.render([frame])
        whole = time.process_time() - begin
        rows.append(ModelTime(name, 1000.0 * watched.cpu_s / runs, 1000.0 * whole / runs))
    return tuple(rows)


def lines_of_models(rows: tuple[ModelTime, ...]) -> list[str]:
    """Return one line per model for the terminal."""
    return [f"renderer {row.model}: {row.network_ms:.1f} ms CPU per frame, {row.frame_ms:.1f} with its features" for row in rows]


def measure_renderer() -> tuple[NetworkTime, ...]:
    """Measure the network of `ugc` on all backends that this machine can run."""
    rows: list[NetworkTime] = []
    for choice in BACKEND_CHOICES:
        try:
            backend = make_backend(device="cpu", backend=choice.backend, precision=choice.precision, num_threads=1)
            model = read_models(WEIGHTS_FOLDER, choice.precision)["ugc"]
            backend.load(model)
        except DubstageError:
            continue  # this machine cannot run the backend
        shape = model.input_shape(INPUT_PICTURES)
        assert shape is not None
        picture = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
        inputs: dict[str, npt.NDArray[np.generic]] = {INPUT_PICTURES: picture, INPUT_STATE: default_state(model)[None]}
        backend.infer(model.name, inputs)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(_RUNS):
            backend.infer(model.name, inputs)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        is_default = choice == default_choice("cpu")
        rows.append(NetworkTime(choice.backend, str(choice.precision), 1000.0 * wall / _RUNS, 1000.0 * cpu / _RUNS, is_default))
    return tuple(rows)
