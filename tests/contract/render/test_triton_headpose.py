"""The model `headpose` on a real tritonserver: the bytes of this process."""

import numpy as np
import numpy.typing as npt

from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import MouthBank
from services.render.triton.launch import TritonProcess
from services.render.types import RenderFrame
from tests.contract.render.actor_streams import boxes_there_and_here
from tests.contract.render.conftest import Connect
from tests.unit.render.drawn_person import drawing


def test_drawn_faces_same_bytes(triton: TritonProcess, connect: Connect, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    """A stream of drawn faces has the bytes of this process."""
    there = connect(triton, shared_memory=True)
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    frames = [
        RenderFrame(row, bank.boxes[row], face.draw(bank.mouth[row + 3], pose, detailed=True), mask, bank.box_landmarks[row + 3])
        for row in range(6)
    ]
    one, other = boxes_there_and_here(there, "headpose", bank, frames)
    assert one == other
