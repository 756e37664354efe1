"""Streams of actors on a real tritonserver: the bytes of this process, and batches of several actors on one loaded model."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as tritongrpc

from research.bench.renderer import Inputs, batch_of, frames_of
from research.bench.triton import TritonProcess
from services.common.face.crops import HeadPose
from services.common.face.mouth_bank import MouthBank
from services.render.key_pictures import STATE_SIZE, choose_keys, packed
from services.render.streams import RenderModels, open_stream
from services.render.types import RenderFrame
from tests.contract.render.conftest import Connect, models_here
from tests.unit.render.drawn_person import drawing

STREAMS: Final = 4
FRAMES: Final = 4
"""Frames of each stream."""


def test_statistics_count_every_actor(triton: TritonProcess, connect: Connect) -> None:
    """The server's statistics count every frame of every actor, and fewer batches than frames."""
    models = connect(triton, max_in_flight=STREAMS)
    model, client = models.files["everyone"], tritongrpc.InferenceServerClient(triton.url)

    def counted(frames: int) -> tuple[int, int]:
        """Return the frames and batches so far. The server counts after it has answered."""
        deadline = time.monotonic() + 60
        while (found := client.get_inference_statistics("everyone").model_stats[0]).inference_count < frames:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return found.inference_count, found.execution_count

    def play(frames: Sequence[Inputs]) -> None:
        for frame in frames:
            models.backend.infer(model.name, batch_of(model, [frame]))

    def play_all() -> None:
        with ThreadPoolExecutor(STREAMS) as threads:
            list(threads.map(play, streams))

    streams = [frames_of(model, seed, FRAMES) for seed in range(STREAMS)]
    # Two warm-ups: of the server and of the stage.
    before = counted(2)
    # In the first round, the model prepares itself for each size of a batch.
    play_all()
    before = counted(before[0] + STREAMS * FRAMES)
    play_all()
    after = counted(before[0] + STREAMS * FRAMES)
    assert after[0] - before[0] == STREAMS * FRAMES
    assert FRAMES <= after[1] - before[1] < STREAMS * FRAMES


def test_window_stream_same_bytes(triton: TritonProcess, connect: Connect, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    there = connect(triton, shared_memory=True)
    frames = [RenderFrame(row, bank.boxes[row], None, mask, bank.box_landmarks[row + 3]) for row in range(6)]
    one, other = boxes_there_and_here(there, "everybody", bank, frames)
    assert one == other


def test_drawn_faces_same_bytes(triton: TritonProcess, connect: Connect, bank: MouthBank, mask: npt.NDArray[np.uint8]) -> None:
    there = connect(triton, shared_memory=True)
    face, pose = drawing(), HeadPose(1.0, np.eye(3), np.zeros(3))
    frames = [
        RenderFrame(row, bank.boxes[row], face.draw(bank.mouth[row + 3], pose, detailed=True), mask, bank.box_landmarks[row + 3])
        for row in range(6)
    ]
    one, other = boxes_there_and_here(there, "headpose", bank, frames)
    assert one == other


def boxes_there_and_here(
    there: RenderModels, model: str, bank: MouthBank, frames: Sequence[RenderFrame]
) -> tuple[list[bytes], list[bytes]]:
    """The boxes of one stream from `there` and from ONNX Runtime in this process, on one thread."""
    here = models_here()
    length = here.files[model].state_size - STATE_SIZE
    film = np.random.default_rng(0).normal(0.0, 0.05, length).astype(np.float32)
    state = packed(film, choose_keys(bank, np.arange(bank.num_frames)))
    one, other = (
        [made.box.tobytes() for made in open_stream(models.backend, models.files[model], state).render(frames)]
        for models in (there, here)
    )
    return one, other
