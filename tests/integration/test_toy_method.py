"""A whole new method: two rooms in a temporary package, one line in each registry, one row in the gateway's table."""

from __future__ import annotations

import shutil
import sys
import wave
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import av
import numpy as np
import pytest

from dubstage.client import gateway as client
from gateway.methods import LAG_FEATURES, METHODS, Method, Predictor, Renderer
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.plan import RENDERED
from gateway.settings import GatewaySettings
from gateway.stages.host import StageHost
from services.common.array_types import Float64, UInt8
from services.common.store.artefacts import ArtefactStore
from services.motion.predictors.registry import PREDICTORS
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.renderer import ExportJob
from services.render.renderers.registry import RENDERERS
from tests.integration.conftest import SPEECH, LoopThread, Media, RunningStages, StartGateway, serving_stages, write_short_clip

NUM_FRAMES = 80
"""Frames of the footage: enough for the motion personalisation at any lag."""
QUIET_S = 1.0
"""Silence before the speech begins."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", autouse=True)
def toy(stages: RunningStages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The toy, registered in both stages and in the gateway, with its exported network beside those of the other methods.

    The session's own stages begin before that: they would read the toy's weights, and keep them when the toy is gone.
    """
    packages, weights = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("weights")
    shutil.copytree(Path(__file__).with_name("toy_method"), packages / "toy_method")
    for path in WEIGHTS_FOLDER.iterdir():
        (weights / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(packages)
        patch.setenv("DUBSTAGE_RENDER_WEIGHTS", str(weights))
        predictor, renderer = import_module("toy_method.predictor").PREDICTOR, import_module("toy_method.renderer").RENDERER
        patch.setitem(PREDICTORS, "toy", predictor)
        patch.setitem(RENDERERS, "toy", renderer)
        motion = Predictor(name="toy", features=LAG_FEATURES, look_ahead_ms=80)
        patch.setitem(METHODS, "toy", Method(name="toy", motion=motion, renderer=Renderer(name="toy", needs_actor=True)))
        renderer.export(ExportJob(weights=None, folder=weights))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_method"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def footage(media: Media, carphone: Path) -> Path:
    """A short clip of a real man, with sound: the beginning of the demo's speech."""
    silent, path = media.root / "toy_silent.mp4", media.root / "toy_footage.mkv"
    write_short_clip(carphone, silent, NUM_FRAMES)
    rate, samples = demo_speech()
    with av.open(str(silent)) as film, av.open(str(path), "w") as target:
        pictures = target.add_stream_from_template(film.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=rate, layout="mono")
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                target.mux(packet)
        heard = av.AudioFrame.from_ndarray(samples[None, : rate * NUM_FRAMES // 25], format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = rate, 0, Fraction(1, rate)
        target.mux([*sound.encode(heard), *sound.encode(None)])
    return path


@pytest.fixture(scope="module")
def speech(media: Media) -> Path:
    """Silence for QUIET_S, then speech."""
    path = media.root / "toy_speech.wav"
    rate, samples = demo_speech()
    with wave.open(str(path), "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(bytes(2 * int(QUIET_S * rate)) + samples.tobytes())
    return path


def demo_speech() -> tuple[int, np.ndarray[tuple[int], np.dtype[np.int16]]]:
    with wave.open(str(SPEECH)) as source:
        return source.getframerate(), np.frombuffer(source.readframes(source.getnframes()), "<i2")


@pytest.fixture(scope="module")
def dubbed(footage: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's film, made by stages in this process."""
    folder = tmp_path_factory.mktemp("toy")
    settings = GatewaySettings(data_dir=folder / "data", artefacts_url=str(folder / "artefacts"))
    request = DubRequest(footage=footage, speech=speech, output=folder / "dubbed.mkv", method="toy", codec="ffv1")
    with StageHost(settings) as host:
        job = DubJob(request, host.stages, ArtefactStore(settings.artefacts_url), folder / "jobs")
        outcome = host.run(job.run(lambda *_: None))
    assert outcome.actor is not None
    assert outcome.actor.renderer_trained
    assert np.isin(outcome.plan.reason, RENDERED).mean() > 0.9
    return request.output


def pictures_of(path: Path) -> UInt8:
    """All frames of a film, uint8 [T, H, W, 3]."""
    with av.open(str(path)) as film:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


def blue_added(before: UInt8, after: UInt8) -> Float64:
    """Grey levels by which the bluest pixels of each frame became bluer against red, float64 [T]."""
    change = after.astype(int) - before
    return np.percentile(change[..., 2] - change[..., 0], 99.5, axis=(1, 2))


def test_mouths_show_what_the_toy_drew(footage: Path, dubbed: Path) -> None:
    blue = blue_added(pictures_of(footage), pictures_of(dubbed))
    assert len(blue) == NUM_FRAMES
    quiet, speaking = blue[: int(QUIET_S * 25) - 3], blue[int(QUIET_S * 25) :]
    assert quiet.max() < 10
    assert (speaking > 60).mean() > 0.3
    assert speaking.max() > 120


def test_the_toy_dubs_over_grpc_as_in_process(
    footage: Path, speech: Path, dubbed: Path, loop_thread: LoopThread, start_gateway: StartGateway, tmp_path: Path
) -> None:
    output = footage.with_name("toy_grpc.mkv")
    with serving_stages(loop_thread, tmp_path / "artefacts") as stages:
        running = start_gateway(artefacts_url=str(stages.artefacts), **stages.endpoints())
        with running.connect() as connection:
            result = client.dub(
                connection, footage=footage.name, speech=speech.name, output=output.name, method="toy", codec="ffv1"
            ).wait(timeout_s=90)
    assert result.num_frames == NUM_FRAMES
    np.testing.assert_array_equal(pictures_of(output), pictures_of(dubbed))
