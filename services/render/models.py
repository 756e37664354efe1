"""Models of a serving process: a backend that has the models of a folder loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.common.array_types import UInt8
from services.common.errors import ModelNotFound
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.common.face.neural_texture import NUM_CHANNELS
from services.render.backends.base import Backend
from services.render.backends.registry import ModelFile, read_models
from services.render.renderer import Renderer
from services.render.renderers.registry import renderer_named
from services.render.streams import default_state, open_stream
from services.render.types import ModelInfo, RenderFrame


@dataclass(frozen=True, slots=True)
class RenderModels:
    """Loaded models.

    Attributes:
        backend: runtime that computes the models.
        files: exported networks by name.
        folder: folder of the weights that personalisation trains with.
        unavailable: names of the exported networks that the backend cannot read, each with the reason and the remedy.
    """

    backend: Backend
    files: dict[str, ModelFile]
    folder: Path
    unavailable: dict[str, str]

    def info(self) -> list[ModelInfo]:
        """Describe all models, ordered by name."""
        return [self._info(file, renderer_named(name)) for name, file in sorted(self.files.items())]

    def _info(self, file: ModelFile, renderer: Renderer) -> ModelInfo:
        return ModelInfo(
            name=file.name,
            sha256=file.sha256,
            backend=self.backend.name,
            precision=self.backend.precision,
            num_threads=self.backend.num_threads,
            frames_before=renderer.frames_before,
            frames_after=renderer.frames_after,
            inputs=renderer.inputs,
            texture=renderer.texture,
            needs_actor=renderer.needs_actor,
            needs_identity=renderer.needs_identity,
            box_multiple=file.box_multiple,
        )


def load_models(folder: Path, backend: Backend) -> RenderModels:
    """Load all models of a folder and draw one black frame with each. A model that the backend cannot read is left out.

    Raises:
        ModelNotFound: a file is missing, a model has the name of no renderer, or the backend can read none of the models.
        ArtefactCorrupt: a file is damaged.
        BackendUnavailable: the backend's server does not answer.
    """
    files = read_models(folder, backend.precision)
    renderers = {name: renderer_named(name) for name in files}
    unavailable: dict[str, str] = {}
    for name, file in files.items():
        try:
            backend.load(file)
        except ModelNotFound as error:
            unavailable[name] = error.message
            continue
        reference = _black(file) if "reference" in renderers[name].inputs else None
        stream = open_stream(backend, file, default_state(file), reference)
        stream.render([blank_frame(file)])
        stream.finish()
    if len(unavailable) == len(files):
        raise ModelNotFound("; ".join(unavailable.values()), resource=str(folder))
    return RenderModels(backend, {name: files[name] for name in files if name not in unavailable}, folder, unavailable)


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
