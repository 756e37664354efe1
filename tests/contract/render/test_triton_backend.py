"""One renderer, two backends: in the process, and on a real tritonserver that runs the same file."""

import queue
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as tritongrpc

from research.bench.triton import TritonProcess
from research.render.models import load_models
from services.common.array_types import Float32
from services.common.errors import BackendUnavailableError, ContractBrokenError, ModelNotFoundError, OverloadedError
from services.common.files import file_sha256
from services.render.backends.base import TritonOptions
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, WEIGHTS_FOLDER
from services.render.backends.triton_control import SharedRegion, TritonControl
from services.render.backends.triton_healing import TritonMonitor
from services.render.renderers.ugc.renderer import network_picture
from services.render.streams import make_backend
from services.render.triton.repository import RepositorySpec, write_repository
from services.render.types import Precision, RenderedFrame, RenderFrame
from tests.contract.ports import free_port
from tests.contract.render.conftest import Connect, StartTriton, actor_states, models_here, stub_of
from tests.unit.render.rendering import render
from tests.unit.render.unreadable import weights_with_unreadable

StartUgc = Callable[[RepositorySpec], TritonProcess]


@pytest.fixture
def triton(shared_triton: TritonProcess) -> TritonProcess:
    return shared_triton


@pytest.fixture(scope="module")
def ugc_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of one model, for servers of a test's own: loading the others takes seconds."""
    folder = tmp_path_factory.mktemp("weights")
    for path in WEIGHTS_FOLDER.glob("ugc.*"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def start_ugc(start_triton: StartTriton, ugc_alone: Path, tmp_path: Path) -> StartUgc:
    """Starts servers of one model that end with the test."""

    def start(spec: RepositorySpec) -> TritonProcess:
        write_repository(tmp_path / "repository", ugc_alone, spec)
        return start_triton(tmp_path / "repository")

    return start


def boxes(rendered: list[RenderedFrame]) -> bytes:
    return b"".join(frame.box.tobytes() for frame in rendered)


def psnr(frame: RenderFrame, first: RenderedFrame, second: RenderedFrame) -> float:
    """Inside the mask, decibels."""
    inside = frame.mask > 0
    error = np.mean((first.box[inside].astype(np.float64) - second.box[inside]) ** 2)
    return float("inf") if error == 0.0 else float(10.0 * np.log10(255.0**2 / error))


@pytest.mark.parametrize("shared_memory", [False, True])
def test_real_frames_same_bytes(triton, connect, in_process, footage, shared_memory) -> None:
    """Real frames get the bytes of the backend in the process."""
    models = connect(triton, shared_memory=shared_memory)
    file = models.files["ugc"]
    for size, state in zip((1, 2, 3, 4), actor_states(4), strict=True):
        for begin in range(0, 12, size):
            batch = footage[begin : begin + size]
            assert boxes(render(models.backend, file, batch, state)) == boxes(render(in_process, file, batch, state))


def test_large_batch_is_split(start_ugc, connect, in_process, footage, ugc_alone) -> None:
    """A batch that is larger than the server takes is cut."""
    models = connect(start_ugc(RepositorySpec(max_batch_size=2)), weights=ugc_alone)
    (state,) = actor_states(1)
    got = render(models.backend, models.files["ugc"], footage[:5], state)
    assert boxes(got) == boxes(render(in_process, models.files["ugc"], footage[:5], state))


def test_frames_independent_of_batch(triton: TritonProcess, connect: Connect, footage: list[RenderFrame]) -> None:
    """Frames keep their picture whatever batch they come in."""
    models = connect(triton)
    (state,) = actor_states(1)
    together = render(models.backend, models.files["ugc"], footage[:8], state)
    alone = [render(models.backend, models.files["ugc"], [frame], state)[0] for frame in footage[:8]]
    assert min(psnr(*each) for each in zip(footage[:8], together, alone, strict=True)) >= 50.0


def test_list_models_shows_backend(triton: TritonProcess, connect: Connect) -> None:
    """The answer of list models says what computes where."""
    models = connect(triton)
    *others, info = models.info()
    assert [other.spec.name for other in others] == ["everybody", "everyone", "headpose", "hetero"]
    assert {other.backend for other in others} == {"triton/onnxruntime"}
    assert (info.spec.name, info.backend, info.precision, info.num_threads) == ("ugc", "triton/onnxruntime", Precision.INT8, 1)
    assert info.sha256 == file_sha256(WEIGHTS_FOLDER / "ugc.int8.onnx")


def test_actors_share_one_model(start_ugc, connect, in_process, footage, ugc_alone) -> None:
    """Each actor has one frame underway at a time, so any inference of more than one frame is of several actors."""
    server = start_ugc(RepositorySpec(queue_delay_us=300_000, max_batch_size=4))
    models = connect(server, weights=ugc_alone)
    # Two so far: the warm-ups of the server and of the stage.
    before = batches(server, total=2)
    states = actor_states(4)
    together = threading.Barrier(len(states))

    def play(state: Float32) -> list[RenderedFrame]:
        together.wait(60.0)
        return [render(models.backend, models.files["ugc"], [frame], state)[0] for frame in footage[:6]]

    with ThreadPoolExecutor(len(states)) as streams:
        answers = list(streams.map(play, states))
    for state, answer in zip(states, answers, strict=True):
        expected = [render(in_process, models.files["ugc"], [frame], state)[0] for frame in footage[:6]]
        assert boxes(answer) == boxes(expected)
    assert all(boxes(one) != boxes(other) for one, other in pairwise(answers))
    sizes = {size: count - before.get(size, 0) for size, count in batches(server, total=26).items()}
    assert sum(sizes.values()) < 24
    assert max(size for size, count in sizes.items() if count) > 1


def batches(server: TritonProcess, total: int) -> dict[int, int]:
    """How often the server computed each batch size, from its own statistics, once they count `total` frames in all."""
    client = tritongrpc.InferenceServerClient(server.url)
    for _ in range(3000):
        # The server counts after it has answered.
        (statistics,) = client.get_inference_statistics("ugc").model_stats
        if statistics.inference_count == total:
            break
        time.sleep(0.02)
    client.close()
    sizes = {int(row.batch_size): int(row.compute_infer.count) for row in statistics.batch_stats}
    assert sum(size * count for size, count in sizes.items()) == statistics.inference_count == total
    assert sum(sizes.values()) == statistics.execution_count
    return sizes


def test_excess_inferences_wait_or_fail(start_ugc: StartUgc, connect: Connect, footage: list[RenderFrame], ugc_alone: Path) -> None:
    """More inferences than allowed wait here and are refused in time."""
    # In four seconds, one at a time, no more than nine inferences of half a second can begin.
    models = connect(start_ugc(RepositorySpec(queue_delay_us=500_000)), weights=ugc_alone, max_in_flight=1, timeout_s=4.0)
    (state,) = actor_states(1)

    def attempt(_: int) -> bool:
        try:
            render(models.backend, models.files["ugc"], footage[:1], state)
        except OverloadedError:
            return False
        return True

    with ThreadPoolExecutor(12) as streams:
        answered = list(streams.map(attempt, range(12)))
    assert 1 <= sum(answered) < 12


def test_nobody_at_the_address_is_said_in_time() -> None:
    port = free_port()
    options = TritonOptions(url=f"127.0.0.1:{port}", start_timeout_s=0.5)
    backend = make_backend(device="cpu", backend="triton", precision=None, num_threads=1, triton=options)
    with pytest.raises(BackendUnavailableError, match=rf"no Triton answers at 127\.0\.0\.1:{port} \(DUBSTAGE_TRITON_URL\)"):
        load_models(WEIGHTS_FOLDER, backend)


def test_a_repository_with_another_network_is_refused(triton: TritonProcess, connect: Connect) -> None:
    told = r"another network for model '(\w+)'.*\(\1\.onnx\).*version 1.*\(int8\).*DUBSTAGE_PRECISION"
    with pytest.raises(ModelNotFoundError, match=told):
        connect(triton, precision=Precision.FLOAT32)


def test_a_repository_without_the_model_is_refused(start_triton: StartTriton, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told = r"no model '(ugc|everybody|everyone|headpose|hetero)' in its repository.*services\.render\.triton\.repository"
    with pytest.raises(ModelNotFoundError, match=told):
        connect(start_triton(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("precision", "file", "place"), [(Precision.INT8, "model.onnx", 0.5), (Precision.FLOAT32, "ugc.safetensors", 1.0)]
)
def test_a_damaged_file_is_not_served(precision, file, place, start_triton, connect, ugc_alone, tmp_path) -> None:
    write_repository(tmp_path / "damaged", ugc_alone, RepositorySpec(precision=precision))
    path = tmp_path / "damaged" / "ugc" / "1" / file
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelNotFoundError, match=rf"{re.escape(file)} is damaged: sha256"):
        connect(start_triton(tmp_path / "damaged"), weights=ugc_alone, precision=precision)


def test_a_network_in_float32_gets_its_weights_file(start_ugc, connect, footage, ugc_alone) -> None:
    models = connect(start_ugc(RepositorySpec(precision=Precision.FLOAT32)), weights=ugc_alone, precision=Precision.FLOAT32)
    (state,) = actor_states(1)
    alone = models_here(ugc_alone, Precision.FLOAT32)
    file = alone.files["ugc"]
    assert boxes(render(models.backend, file, footage[:3], state)) == boxes(render(alone.backend, file, footage[:3], state))


def test_unloadable_model_spares_others(start_triton, connect, in_process, footage, tmp_path) -> None:
    """A model that the server cannot load keeps no other from serving."""
    weights = weights_with_unreadable(tmp_path / "weights", "hetero")
    write_repository(tmp_path / "repository", weights, RepositorySpec())
    models = connect(start_triton(tmp_path / "repository"), weights=weights)
    assert list(models.files) == ["ugc"]
    assert list(models.unavailable) == ["hetero"]
    assert re.search(r"cannot load 'hetero' \(.*NoSuchOperator.*\): export the repository again", models.unavailable["hetero"])
    (state,) = actor_states(1)
    got = render(models.backend, models.files["ugc"], footage[:2], state)
    assert boxes(got) == boxes(render(in_process, models.files["ugc"], footage[:2], state))


def test_impossible_batch_is_internal_error(triton: TritonProcess, connect: Connect) -> None:
    """A batch that the model cannot take is our own mistake."""
    models = connect(triton)
    inputs = {INPUT_PICTURES: np.zeros((1, 80, 80, 9), np.uint8), INPUT_STATE: np.zeros((1, 3480), np.float32)}
    with pytest.raises(ContractBrokenError, match=r"Triton refused an inference.*80, 80"):
        models.backend.infer("ugc", inputs)


def test_renderer_gets_own_weights_version(start_triton, connect, footage, ugc_alone, tmp_path) -> None:
    """A renderer gets the version of its own weights and an upgrade unloads the older."""
    write_repository(tmp_path / "versions", ugc_alone, RepositorySpec())
    newer = newer_weights(ugc_alone, tmp_path / "weights")
    write_repository(tmp_path / "versions", newer, RepositorySpec())
    server = start_triton(tmp_path / "versions")
    (state,) = actor_states(1)
    old = connect(server, weights=ugc_alone)
    assert served_versions(server) == ["1"]
    before = boxes(render(old.backend, old.files["ugc"], footage[:2], state))
    new = connect(server, weights=newer)
    assert served_versions(server) == ["2"]
    earlier, later = ([info.sha256 for info in models.info() if info.spec.name == "ugc"] for models in (old, new))
    assert earlier != later
    # The newer file differs in its notes alone.
    assert boxes(render(new.backend, new.files["ugc"], footage[:2], state)) == before


def test_returning_renderer_finds_model(triton: TritonProcess, connect: Connect, repository: Path) -> None:
    """A renderer that comes back finds its model loaded."""
    connect(triton)
    model = stub_of(triton).pid
    connect(triton)
    assert stub_of(triton).pid == model
    assert {path.name for path in (repository / "ugc" / "1").iterdir()} == {"model.onnx", "model.py"}


def newer_weights(weights: Path, folder: Path) -> Path:
    """The committed export as another export would be: other bytes of the network's file."""
    shutil.copytree(weights, folder)
    path = folder / "ugc.int8.onnx"
    model = onnx.load(path)
    model.doc_string = "a later export"
    old = file_sha256(path)
    onnx.save(model, path)
    sheet = folder / "ugc.export.json"
    sheet.write_text(sheet.read_text(encoding="utf-8").replace(old, file_sha256(path)), encoding="utf-8")
    return folder


def served_versions(server: TritonProcess) -> list[str]:
    client = tritongrpc.InferenceServerClient(server.url)
    index = client.get_model_repository_index()
    client.close()
    return [entry.version for entry in index.models if entry.state == "READY" and entry.name == "ugc"]


def test_shared_memory_goes_with_its_backend(triton: TritonProcess, connect: Connect, footage: list[RenderFrame]) -> None:
    client = tritongrpc.InferenceServerClient(triton.url)
    before = registered(client)
    models = connect(triton, shared_memory=True)
    render(models.backend, models.files["ugc"], footage[:1], actor_states(1)[0])
    (made,) = registered(client) - before
    assert (Path("/dev/shm") / made).exists()
    assert hasattr(models.backend, "close")
    models.backend.close()
    assert not (Path("/dev/shm") / made).exists()
    assert made not in registered(client)
    client.close()


def test_killed_renderer_frees_memory(triton: TritonProcess, connect: Connect) -> None:
    """Memory of a renderer that was killed is given back by the server."""
    region = SharedRegion(4096)
    client = tritongrpc.InferenceServerClient(triton.url)
    client.register_system_shared_memory(region.name, f"/{region.name}", 4096)
    region.close()
    assert region.name in client.get_system_shared_memory_status().regions
    connect(triton)
    assert region.name not in client.get_system_shared_memory_status().regions
    client.close()


def test_hanging_inference_frees_memory_later(triton: TritonProcess, connect: Connect, footage: list[RenderFrame]) -> None:
    """Memory that a hanging inference holds is given back later."""
    connect(triton)
    pictures = network_picture(footage[0].background, footage[3].background, footage[0].mask, footage[0].box_landmarks)[None]
    state = actor_states(1)[0][None]
    region = SharedRegion(pictures.nbytes)
    region.write(pictures, 0)
    client = tritongrpc.InferenceServerClient(triton.url)
    client.register_system_shared_memory(region.name, f"/{region.name}", region.size)
    region.close()
    shared = tritongrpc.InferInput(INPUT_PICTURES, list(pictures.shape), "UINT8")
    own = tritongrpc.InferInput(INPUT_STATE, list(state.shape), "FP32")
    shared.set_shared_memory(region.name, region.size)
    own.set_data_from_numpy(state)
    control = TritonControl(TritonOptions(url=triton.url))
    answered: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    model = stub_of(triton)
    model.suspend()
    try:
        sent = 0
        while not num_waiting(triton):
            assert answered.empty(), str(answered.get())
            client.async_infer("ugc", [shared, own], lambda result, error: answered.put(error))
            sent += 1
            time.sleep(0.1)
        control.forget_regions()
        assert region.name in registered(client)
    finally:
        model.resume()
    assert {answered.get(timeout=60) for _ in range(sent)} == {None}
    # Triton lets the memory go a moment after the answer.
    deadline = time.monotonic() + 60.0
    while region.name in registered(client):
        assert time.monotonic() < deadline
        control.forget_regions()
        time.sleep(0.05)
    control.close()
    client.close()


def num_waiting(server: TritonProcess) -> int:
    """Inferences of the model that wait for their turn. None waits while the model computes nothing else."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=60) as page:
        found = re.search(r'^nv_inference_pending_request_count\{model="ugc",.*\} (\d+)$', page.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def registered(client: tritongrpc.InferenceServerClient) -> set[str]:
    """Regions of this test's server. Another process of the tests may have regions in /dev/shm, too."""
    return set(client.get_system_shared_memory_status().regions)


@pytest.mark.parametrize(
    ("shared_memory", "end"),
    [
        pytest.param(False, psutil.Process.kill, marks=pytest.mark.long),
        (True, psutil.Process.kill),
        pytest.param(True, psutil.Process.suspend, marks=pytest.mark.long),
    ],
)
def test_dead_model_healed_same_bytes(triton, connect, in_process, footage, shared_memory, end) -> None:
    """A model that is killed or hangs is healed, and the inference gives the same bytes."""
    # Only a model that hangs is waited for so long.
    options = {"timeout_s": 6.0, "heal_attempts": 5, "heal_wait_s": 5.0} if end is psutil.Process.suspend else {}
    models = connect(triton, shared_memory=shared_memory, **options)
    pictures = network_picture(footage[0].background, footage[3].background, footage[0].mask, footage[0].box_landmarks)[None]
    inputs = {INPUT_PICTURES: pictures, INPUT_STATE: actor_states(1)[0][None]}
    expected = in_process.infer("ugc", inputs)[OUTPUT_RESIDUAL]
    for _ in range(2):
        end(stub_of(triton))
        assert np.array_equal(models.backend.infer("ugc", inputs)[OUTPUT_RESIDUAL], expected)


def test_concurrent_callers_heal_once(triton, connect, in_process, footage) -> None:
    """Many callers that find the model dead heal it once."""
    monitor = TritonMonitor()
    models = connect(triton, monitor=monitor)
    states = actor_states(6)
    stub_of(triton).kill()
    with ThreadPoolExecutor(6) as streams:
        answers = list(streams.map(lambda state: render(models.backend, models.files["ugc"], footage[:2], state), states))
    for state, answer in zip(states, answers, strict=True):
        assert boxes(answer) == boxes(render(in_process, models.files["ugc"], footage[:2], state))
    assert monitor.heals.labels("healed")._value.get() == 1
