"""The model `everybody` on a real tritonserver: the bytes of this process."""

import numpy as np
import numpy.typing as npt

from services.common.face.mouth_bank import MouthBank
from services.render.triton.launch import TritonProcess
from services.render.types import RenderFrame
from tests.contract.render.actor_streams import boxes_there_and_here
from tests.contract.render.conftest import Connect


def test_window_stream_same_bytes(triton: TritonProcess, connect: Connect, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    there = connect(triton, shared_memory=True)
    frames = [RenderFrame(row, bank.boxes[row], None, mask, bank.box_landmarks[row + 3]) for row in range(6)]
    one, other = boxes_there_and_here(there, "everybody", bank, frames)
    assert one == other
