"""What a serving process holds: a backend with the folder's models loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from services.common.crops import BOX_SIZE
from services.common.errors import InvalidRequest
from services.render.backends.base import Backend
from services.render.backends.choice import DEFAULTS, BackendName, Choice, Device
from services.render.backends.onnxruntime_backend import OnnxRuntimeBackend
from services.render.backends.registry import ModelFile, read_models
from services.render.backends.triton_options import TritonOptions
from services.render.render import default_state
from services.render.streams import open_stream
from services.render.types import ModelInfo, Precision, RenderFrame

if TYPE_CHECKING:
    from services.render.backends.triton_healing import TritonMonitor


@dataclass(frozen=True, slots=True)
class RenderModels:
    """Loaded models.

    Attributes:
        backend: computes them.
        files: by name.
        folder: where the weights lie that personalisation trains with.
    """

    backend: Backend
    files: dict[str, ModelFile]
    folder: Path

    def info(self) -> list[ModelInfo]:
        """All models, by name."""
        backend = self.backend
        return [
            ModelInfo(file.name, file.sha256, backend.name, backend.precision, backend.num_threads, file.state_size)
            for _, file in sorted(self.files.items())
        ]


def make_backend(
    *,
    device: Device,
    backend: BackendName | None,
    precision: Precision | None,
    num_threads: int,
    triton: TritonOptions | None = None,
    monitor: TritonMonitor | None = None,
) -> Backend:
    """The backend that settings ask for; where they leave it open, the measured default of the device.

    Args:
        device: where networks are computed; of Triton it decides the default precision only.
        backend: which; None: the default.
        precision: of its arithmetic; None: the default.
        num_threads: of one inference in this process; Triton's threads are in its repository.
        triton: how to use it, for backend `triton`.
        monitor: is told how Triton does.

    Raises:
        InvalidRequest: this machine or the installed build cannot do that.
    """
    if backend == "triton":
        # Its client is imported by those who use it.
        from services.render.backends.triton_backend import TritonBackend

        if triton is None:
            raise InvalidRequest("backend triton needs to know where Triton is", field="DUBSTAGE_TRITON_URL")
        return TritonBackend(triton, precision=precision or DEFAULTS[device].precision, monitor=monitor)
    choice = DEFAULTS[device] if backend is None or precision is None else Choice(backend, precision)
    if choice.backend == "onnxruntime":
        return OnnxRuntimeBackend(device=device, precision=choice.precision, num_threads=num_threads)
    # OpenVINO takes a second to import: only for those who use it.
    from services.render.backends.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(precision=choice.precision, num_threads=num_threads)


def load_models(folder: Path, backend: Backend) -> RenderModels:
    """Load all models of a folder and run each once.

    Raises:
        ModelNotFound, ArtefactCorrupt: a file is missing or damaged.
    """
    files = read_models(folder, backend.precision)
    picture = np.zeros((BOX_SIZE, BOX_SIZE, 3), np.uint8)
    frame = RenderFrame(0, picture, picture, picture[..., 0], np.zeros((59, 2), np.float32))
    for file in files.values():
        backend.load(file)
        open_stream(backend, file, default_state(file)).render([frame])
    return RenderModels(backend, files, folder)
