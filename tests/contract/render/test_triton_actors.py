"""Triton joins frames of many actors to batches on one loaded model; its own statistics say so."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import tritonclient.grpc as tritongrpc

from research.bench.renderer import Inputs, batch_of, frames_of
from services.render.triton.launch import TritonProcess
from tests.contract.render.conftest import Connect

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
