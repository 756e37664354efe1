"""Networks that the stages in this process load: a dub loads those of its method, and a warm-up loads all."""

import asyncio
import gzip
import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import services.face.__main__ as face_stage
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.dub.job.dub_job import DubJob
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.state.disk import JobDisk
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES
from gateway.stages.local import LocalStages, compose_stages
from gateway.stages.opening import listed_models
from research.stage_host import StageHost
from services.audio.speech_encoder import EncoderNetwork
from services.common.methods import METHODS
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore
from services.face.tracking import Networks
from tests.system.dubbing import UNPERSONALIZED, cut, write_wav
from tests.system.test_speech_lengths import demo_speech

FACES = "MediaPipe's networks"
PERSON = {FACES, "style_encoder.onnx"}
"""Networks that learn a person from footage."""
DUB = {"silero_vad.onnx", "ppg.onnx", "speech_encoder.onnx", "temporal_warp.onnx", "ugc.int8.onnx"}
"""Networks that dub a learned person with the method `dubstage`, in footage without sound."""
SERVICES = Path(__file__).parents[2] / "services"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each network was loaded, by the name of the file."""
    found: Counter[str] = Counter()
    names = {hashlib.sha256(_network(path)).hexdigest(): path.name for path in SERVICES.glob("*/weights/*.onnx*")}

    class Recorded(onnxruntime.InferenceSession):  # type: ignore[misc]  # the package has no types
        def __init__(self, network: Any, *arguments: Any, **options: Any) -> None:
            found[names[hashlib.sha256(network).hexdigest()]] += 1
            super().__init__(network, *arguments, **options)

    class RecordedFaces(Networks):
        def __init__(self) -> None:
            found[FACES] += 1
            super().__init__()

    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    monkeypatch.setattr(face_stage, "Networks", RecordedFaces)
    monkeypatch.setenv("DUBSTAGE_BACKEND", "onnxruntime")
    monkeypatch.setenv("DUBSTAGE_PRECISION", "int8")
    return found


def _network(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@pytest.fixture
def own(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))


def test_dub_loads_method_networks(loaded: Counter[str], own: GatewaySettings, carphone: Path, tmp_path: Path) -> None:
    """Each network is loaded once, no network of another method is loaded, and a learned person needs no network of faces."""
    samples = demo_speech(16000, 1.2)
    request = DubRequest(
        footage=cut(carphone, tmp_path / "footage.mkv", 0.0, 1.2),
        speech=write_wav(tmp_path / "speech.wav", samples, 16000),
        output=tmp_path / "dub.mkv",
        method="dubstage",
        codec="ffv1",
        enrol=UNPERSONALIZED,
    )

    def dub(request: DubRequest) -> None:
        loaded.clear()
        # The stages of earlier dubs share this network as long as they are in memory.
        EncoderNetwork._loaded.clear()
        with StageHost(own) as host, ActorStore(own) as actors:
            store, disk = ArtefactStore(own.artefacts_url), JobDisk(keeps_analysis=True)
            job = DubJob(request, host.stages, store, own.data_dir / "jobs", JobLedger(actors), disk=disk)
            host.run(job.run(lambda *_: None))
            job.discard()

    dub(request)
    assert loaded == dict.fromkeys(DUB | PERSON, 1)
    dub(replace(request, speech=write_wav(tmp_path / "other.wav", samples[::-1].copy(), 16000), output=tmp_path / "other.mkv"))
    assert loaded == dict.fromkeys(DUB, 1)


def test_listing_loads_no_network(loaded: Counter[str], own: GatewaySettings) -> None:
    """Stages that are opened without a warm-up load no described network; the list of models is that of a warm stage."""

    async def listed(*names: str, warm_up: bool) -> Any:
        async with LocalStages(compose_stages(own.artefacts_url, names=names), warm_up=warm_up) as stages:
            return await listed_models(stages)

    cold = asyncio.run(listed(*STAGE_NAMES, warm_up=False))
    # This file has no description: only a load shows whether it is whole.
    assert loaded == {"silero_vad.onnx": 1}
    assert cold == asyncio.run(listed("motion", "render", warm_up=True))
    assert {model.name for model in cold.render.models} == {method.renderer.name for method in METHODS.values()}


@pytest.mark.parametrize("stage", ["audio", "motion", "texture", "render", "face"])
def test_warm_up_loads_everything(loaded: Counter[str], own: GatewaySettings, stage: str) -> None:
    """A server that reports that it serves has loaded all that it serves."""
    (parts,) = compose_stages(own.artefacts_url, names=(stage,)).values()
    assert not loaded
    EncoderNetwork._loaded.clear()
    parts.warm_up()
    pattern = "*.int8.onnx" if stage == "render" else "*.onnx*"
    files = {file.name for file in (SERVICES / stage / "weights").glob(pattern)}
    assert loaded == dict.fromkeys(files | ({FACES} if stage == "face" else set()), 1)
    for pool in parts.workers:
        pool.shutdown()
