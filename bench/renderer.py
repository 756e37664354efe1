"""The renderer's network alone, on every backend and precision that was measured for the default."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.crops import BOX_SIZE
from services.common.errors import DubstageError
from services.render.backends.choice import DEFAULTS, MEASURED
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.features import NUM_PICTURE_CHANNELS
from services.render.models import load_models, make_backend
from services.render.render import INPUT_PICTURES, INPUT_STATE, default_state

_RUNS: Final = 40


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """One row: milliseconds a frame of the network, one frame a run on one thread; `default`: what a dub uses."""

    backend: str
    precision: str
    ms_per_frame: float
    cpu_ms_per_frame: float
    default: bool


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
