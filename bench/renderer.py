"""The renderer: its network alone on every backend that was measured for the default, and every model as a dub uses it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.crops import BOX_SIZE
from services.common.errors import DubstageError
from services.render.backends.base import Backend
from services.render.backends.choice import DEFAULTS, MEASURED
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.features import NUM_PICTURE_CHANNELS
from services.render.models import load_models, make_backend
from services.render.render import INPUT_PICTURES, INPUT_STATE, default_state
from services.render.streams import open_stream
from services.render.types import RenderFrame

_RUNS: Final = 40


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """One row: milliseconds a frame of the network, one frame a run on one thread; `default`: what a dub uses."""

    backend: str
    precision: str
    ms_per_frame: float
    cpu_ms_per_frame: float
    default: bool


@dataclass(frozen=True, slots=True)
class ModelTime:
    """One row: processor time a frame of a model on the default backend, one frame a call on one thread.

    Attributes:
        model: its name.
        network_ms: the network alone.
        frame_ms: with what comes before and after it: masks, heatmaps, key pictures, windows, colours.
    """

    model: str
    network_ms: float
    frame_ms: float


class _Watched:
    """A backend that counts the processor time of its inferences."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.cpu_s = 0.0

    def infer(self, model: str, inputs: dict[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.float32]]:
        """As the backend's own."""
        begin = time.process_time()
        outputs = self._backend.infer(model, inputs)
        self.cpu_s += time.process_time() - begin
        return outputs


def measure_models(runs: int = _RUNS) -> tuple[ModelTime, ...]:
    """Every model that is installed, on consecutive frames of noise with a mask over the lower face."""
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    models = load_models(WEIGHTS_FOLDER, backend)
    generator = np.random.default_rng(0)
    pictures = generator.integers(1, 256, (2, BOX_SIZE, BOX_SIZE, 3), dtype=np.uint8)
    mask = np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
    mask[36:144, 24:136] = 255
    angles = np.linspace(0.0, 2.0 * np.pi, 59, endpoint=False)
    lips = np.stack([80.0 + 35.0 * np.cos(angles), 64.0 + 15.0 * np.sin(angles)], 1).astype(np.float32)
    rows: list[ModelTime] = []
    for name, model in sorted(models.files.items()):
        watched = _Watched(backend)
        stream = open_stream(watched, model, default_state(model))  # type: ignore[arg-type]  # streams infer, and no more
        frames = [RenderFrame(index, pictures[0], pictures[1], mask, lips) for index in range(runs + 1)]
        stream.render(frames[:1])
        watched.cpu_s, begin = 0.0, time.process_time()
        for frame in frames[1:]:
            stream.render([frame])
        whole = time.process_time() - begin
        rows.append(ModelTime(name, 1000.0 * watched.cpu_s / runs, 1000.0 * whole / runs))
    return tuple(rows)


def lines_of_models(rows: tuple[ModelTime, ...]) -> list[str]:
    """One line a model for the terminal."""
    return [f"renderer {row.model}: {row.network_ms:.1f} ms CPU a frame, {row.frame_ms:.1f} with its features" for row in rows]


def measure_renderer() -> tuple[NetworkTime, ...]:
    """All backends that this machine can run."""
    rows: list[NetworkTime] = []
    picture = np.random.default_rng(0).integers(0, 256, (1, BOX_SIZE, BOX_SIZE, NUM_PICTURE_CHANNELS), dtype=np.uint8)
    for choice in [row.choice for row in MEASURED if row.device == "cpu"]:
        try:
            backend = make_backend(device="cpu", backend=choice.backend, precision=choice.precision, num_threads=1)
            models = load_models(WEIGHTS_FOLDER, backend)
        except DubstageError:
            continue  # not on this machine
        model = models.files["ugc"]
        inputs: dict[str, npt.NDArray[np.generic]] = {INPUT_PICTURES: picture, INPUT_STATE: default_state(model)[None]}
        backend.infer(model.name, inputs)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(_RUNS):
            backend.infer(model.name, inputs)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        is_default = choice == DEFAULTS["cpu"]
        rows.append(NetworkTime(choice.backend, str(choice.precision), 1000.0 * wall / _RUNS, 1000.0 * cpu / _RUNS, is_default))
    return tuple(rows)
