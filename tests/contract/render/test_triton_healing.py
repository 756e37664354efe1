"""A tritonserver that restarts has lost every model, and every model is given back by its own reload."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import tritonclient.grpc as tritongrpc

from research.bench.triton import TritonProcess
from services.render.backends.base import TritonOptions
from services.render.backends.model_files import WEIGHTS_FOLDER, read_models
from services.render.backends.triton_control import CurableError, Cure
from services.render.backends.triton_healing import TritonHealer, TritonMonitor
from services.render.types import Precision

MODELS = ("headpose", "ugc")
LOST = CurableError("Request for unknown model", Cure.RELOAD)


@pytest.fixture
def healer(triton: TritonProcess) -> Iterator[TritonHealer]:
    """A healer of two models, which never probes by itself."""
    options = TritonOptions(url=triton.url, timeout_s=30.0, heal_wait_s=60.0, probe_interval_s=600.0)
    made = TritonHealer(options, TritonMonitor())
    files = read_models(WEIGHTS_FOLDER, Precision.INT8)
    for name in MODELS:
        made.load(files[name])
    yield made
    made.close()


def _loaded(server: TritonProcess) -> set[str]:
    client = tritongrpc.InferenceServerClient(server.url)
    index = client.get_model_repository_index()
    client.close()
    return {entry.name for entry in index.models if entry.state == "READY"}


def test_reload_of_other_model_ignored(triton: TritonProcess, healer: TritonHealer) -> None:
    triton.stop(kill=True)
    triton.start()
    assert _loaded(triton) == set()
    seen = {name: healer.reloads(name) for name in MODELS}
    for healed, name in enumerate(MODELS):
        healer.heal(name, seen[name], LOST)
        assert _loaded(triton) == set(MODELS[: healed + 1])
    assert {name: healer.reloads(name) - seen[name] for name in MODELS} == dict.fromkeys(MODELS, 1)


def test_reloaded_model_not_reloaded_again(triton: TritonProcess, healer: TritonHealer) -> None:
    triton.stop(kill=True)
    triton.start()
    seen = {name: healer.reloads(name) for name in MODELS}
    with ThreadPoolExecutor(6) as streams:
        for healing in chain.from_iterable(
            [streams.submit(healer.heal, name, seen[name], LOST) for name in MODELS] for _ in range(3)
        ):
            healing.result(timeout=120.0)
    assert _loaded(triton) == set(MODELS)
    assert {name: healer.reloads(name) - seen[name] for name in MODELS} == dict.fromkeys(MODELS, 1)
    assert healer.generation == len(MODELS)
