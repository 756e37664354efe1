"""The model `headpose` on a real tritonserver: the bytes of this process."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.common.crops import HeadPose
from services.common.mouth_bank import MouthBank
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.models import load_models, make_backend
from services.render.streams import open_stream
from services.render.triton.launch import TritonProcess
from services.render.types import RenderFrame
from tests.contract.render.conftest import Connect
from tests.unit.render.drawn_person import drawing


def test_a_stream_of_drawn_faces_has_the_bytes_of_this_process(
    triton: TritonProcess, connect: Connect, bank: MouthBank, mask: npt.NDArray[np.uint8]
) -> None:
    there = connect(triton, shared_memory=True)
    here = load_models(WEIGHTS_FOLDER, make_backend(device="cpu", backend=None, precision=None, num_threads=1))
    length = here.files["headpose"].state_size - STATE_SIZE
    film = np.random.default_rng(0).normal(0.0, 0.05, length).astype(np.float32)
    state = packed(film, choose_keys(bank, np.arange(bank.num_frames)))
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    frames = [
        RenderFrame(row, bank.boxes[row], face.draw(bank.mouth[row + 3], pose, detailed=True), mask, bank.box_landmarks[row + 3])
        for row in range(6)
    ]
    one, other = (
        [made.box.tobytes() for made in open_stream(models.backend, models.files["headpose"], state).render(frames)]
        for models in (there, here)
    )
    assert one == other
