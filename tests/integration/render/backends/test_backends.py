"""The committed networks on all backends in the process: the same bytes whatever the batches, and in every process."""

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from services.common.array_types import Array
from services.render.backends.base import BACKEND_CHOICES, CHOICE_OF_PROCESSOR, Backend, BackendChoice
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, WEIGHTS_FOLDER, read_models
from services.render.backends.openvino import _core
from services.render.streams import RenderModels, make_backend
from services.render.types import Precision
from tests.unit.render.rendering import committed_models

NAMES = ["ugc", "everybody", "headpose", "hetero", "everyone"]


def skip_without(choice: BackendChoice) -> None:
    """Skip where the processor does not compute in the precision. OpenVINO says so, because a virtual machine can hide flags."""
    if choice == BackendChoice("openvino", Precision.BFLOAT16) and "BF16" not in _core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        pytest.skip("needs a processor that computes in bfloat16 (avx512_bf16 or amx_bf16)")


@pytest.fixture(scope="module", params=BACKEND_CHOICES, ids=str)
def models(request: pytest.FixtureRequest) -> RenderModels:
    choice: BackendChoice = request.param
    skip_without(choice)
    loaded = committed_models(f"{choice.backend}-{choice.precision}")
    assert not loaded.unavailable
    return loaded


def given(name: str, count: int) -> dict[str, Array]:
    """Smooth pictures and states of several actors."""
    inputs = json.loads((WEIGHTS_FOLDER / f"{name}.export.json").read_text(encoding="utf-8"))["inputs"]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, *inputs[INPUT_PICTURES][1][1:]), np.uint8)
    pictures = np.stack([cv2.GaussianBlur(picture, (0, 0), 3.0) for picture in pictures])
    return {INPUT_PICTURES: pictures, INPUT_STATE: rng.normal(0.0, 0.1, (count, inputs[INPUT_STATE][1][1])).astype(np.float32)}


def digest_of(backend: Backend, name: str) -> str:
    """Digest of one network's residual."""
    return hashlib.sha256(backend.infer(name, given(name, 2))[OUTPUT_RESIDUAL].tobytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_several_actors_change_no_byte(models: RenderModels, name: str) -> None:
    count = 7
    frames = given(name, count)

    def computed(size: int) -> np.ndarray:
        parts = [slice(begin, begin + size) for begin in range(0, count, size)]
        made = [models.backend.infer(name, {key: values[part] for key, values in frames.items()}) for part in parts]
        return np.concatenate([each[OUTPUT_RESIDUAL] for each in made])

    np.testing.assert_array_equal(computed(5), computed(1))


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_draws_the_picture_of_float32(models: RenderModels, name: str) -> None:
    frames = given(name, 2)
    plain = committed_models("onnxruntime-float32").backend.infer(name, frames)[OUTPUT_RESIDUAL]
    error = models.backend.infer(name, frames)[OUTPUT_RESIDUAL] - plain
    most = {Precision.FLOAT32: 0.05, Precision.BFLOAT16: 0.5, Precision.INT8: 8.0}
    assert np.sqrt(np.mean(np.square(error))) < most[models.backend.precision]


@pytest.mark.parametrize("choice", sorted(set(CHOICE_OF_PROCESSOR.values()), key=str), ids=str)
def test_backends_same_bytes_across_processes(choice: BackendChoice) -> None:
    """Two processes compute the same bytes on the backends of the table."""
    code = f"""
from tests.integration.render.backends.test_backends import digest_of
from services.render.streams import make_backend
from services.render.backends.openvino import _core
from services.render.backends.model_files import WEIGHTS_FOLDER, read_models
from services.render.types import Precision

precision = Precision({str(choice.precision)!r})
backend = make_backend(device="cpu", backend={choice.backend!r}, precision=precision, num_threads=2)
backend.load(read_models(WEIGHTS_FOLDER, precision)["ugc"])
print(digest_of(backend, "ugc"))
"""
    skip_without(choice)
    here = make_backend(device="cpu", backend=choice.backend, precision=choice.precision, num_threads=2)
    here.load(read_models(WEIGHTS_FOLDER, choice.precision)["ugc"])
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert there.stdout.split() == [digest_of(here, "ugc")]


def test_signals_after_overlapping_backends() -> None:
    """Signals are heard after backends with overlapping lives have ended."""
    code = """
import gc, os, signal, time
from services.render.backends.openvino import OpenVinoBackend
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
        [sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr
