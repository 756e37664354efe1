"""One stream of an actor with key pictures, on tritonserver and in this process."""

from collections.abc import Sequence

import numpy as np

from services.common.face.mouth_bank import MouthBank
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.streams import RenderModels, load_models, make_backend, open_stream
from services.render.types import Precision, RenderFrame


def boxes_there_and_here(
    there: RenderModels, model: str, bank: MouthBank, frames: Sequence[RenderFrame]
) -> tuple[list[bytes], list[bytes]]:
    """The boxes of one stream from `there` and from ONNX Runtime in this process, on one thread."""
    here = load_models(WEIGHTS_FOLDER, make_backend(device="cpu", backend="onnxruntime", precision=Precision.INT8, num_threads=1))
    length = here.files[model].state_size - STATE_SIZE
    film = np.random.default_rng(0).normal(0.0, 0.05, length).astype(np.float32)
    state = packed(film, choose_keys(bank, np.arange(bank.num_frames)))
    one, other = (
        [made.box.tobytes() for made in open_stream(models.backend, models.files[model], state).render(frames)]
        for models in (there, here)
    )
    return one, other
