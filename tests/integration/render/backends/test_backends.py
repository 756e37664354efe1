"""The committed networks on all backends in the process: the same bytes whatever the batches."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.models import RenderModels
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from tests.unit.render.rendering import RUNTIMES, committed_models


@pytest.fixture(scope="module", params=RUNTIMES)
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.mark.parametrize("name", ["ugc", "everybody", "headpose", "hetero"])
def test_batches_of_several_actors_change_no_byte(models: RenderModels, name: str) -> None:
    inputs = json.loads((WEIGHTS_FOLDER / f"{name}.export.json").read_text(encoding="utf-8"))["inputs"]
    rng, count = np.random.default_rng(0), 11
    pictures = rng.integers(0, 256, (count, *inputs[INPUT_PICTURES][1][1:]), np.uint8)
    pictures = np.stack([cv2.GaussianBlur(picture, (0, 0), 3.0) for picture in pictures])
    states = rng.normal(0.0, 0.1, (count, inputs[INPUT_STATE][1][1])).astype(np.float32)

    def computed(size: int) -> np.ndarray:
        parts = [slice(begin, begin + size) for begin in range(0, count, size)]
        made = [models.backend.infer(name, {INPUT_PICTURES: pictures[part], INPUT_STATE: states[part]}) for part in parts]
        return np.concatenate([each[OUTPUT_RESIDUAL] for each in made])

    np.testing.assert_array_equal(computed(5), computed(1))


def test_signals_are_heard_after_backends_with_overlapping_lives_have_ended() -> None:
    code = """
import gc, os, signal, time
from services.render.backends.openvino_backend import OpenVinoBackend
from services.render.types import Precision

# A shell that starts the tests in the background makes them ignore this signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
first = OpenVinoBackend(precision=Precision.FLOAT32, num_threads=1)
second = OpenVinoBackend(precision=Precision.FLOAT32, num_threads=1)
del first
gc.collect()
del second
gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)  # another thread may hear the signal, and tells this one a little later
except KeyboardInterrupt:
    print("heard")
"""
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
