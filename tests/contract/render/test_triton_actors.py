"""Triton joins frames of many actors to batches on one loaded model; its own statistics say so."""

from __future__ import annotations

import time

import tritonclient.grpc as tritongrpc

from research.bench.triton_actors import lines_of_triton_actors, measure_model
from services.render.triton.launch import TritonProcess
from tests.contract.render.conftest import Connect


def test_statistics_count_every_actor(triton: TritonProcess, connect: Connect) -> None:
    """The server's statistics count every frame of every actor."""
    models = connect(triton, max_in_flight=4)
    client = tritongrpc.InferenceServerClient(triton.url)
    deadline = time.monotonic() + 60
    # The server counts after it has answered: here the warm-ups of the server and of the stage.
    while client.get_inference_statistics("everyone").model_stats[0].inference_count < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    row = measure_model(models.backend, client, models.files["everyone"], streams=4, rounds=1)
    assert row.one.frames == row.many.frames == 16
    # Fewer batches than frames: frames of different actors were computed together.
    assert 4 <= row.many.batches < 16
    assert row.one.seconds > 0.0 < row.many.seconds
    (line,) = lines_of_triton_actors([row])
    assert line.startswith("Triton everyone, 4 streams: ")
