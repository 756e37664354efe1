"""A whole new method: a package in each of two stages, and rows in the table of methods.

A second renderer of the toy takes every optional input that the gateway makes: neural texture, speech and reference.
"""

import re
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.installation import open_installation
from gateway.dub.analyse.frame_plan import RENDERED
from gateway.dub.analyse.motion_clip import MIN_ENROLMENT_FRAMES
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.learn import analysis
from gateway.dub.progress import OnProgress
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.request.spec import LocalFiles
from gateway.dub.request.spec_text import spec_from
from gateway.engine import Engine
from gateway.settings import GatewaySettings
from research.stage_host import StageHost
from services.common.array_types import Float64, UInt8
from services.common.errors import ActorError, ArtefactNotFoundError, InvalidRequestError, NoUsableFootageError
from services.common.face.neural_texture import ARRAY_NAME, TEXTURE_SHAPE
from services.common.methods import METHODS, PREDICTORS, RENDERERS, Method, PredictorSpec, RendererSpec
from services.common.store.artefacts import OWNER, ArtefactStore
from services.motion import predictors
from services.motion.types import MAX_LAG
from services.render import renderers
from services.render.backends.model_files import WEIGHTS_FOLDER
from tests.erasing import erase
from tests.integration.servers import RunningGateway, RunningStages, serving_stages
from tests.integration.videos import SPEECH, Media, write_short_clip
from tests.refusals import raised

NUM_FRAMES = 2 * MIN_ENROLMENT_FRAMES + MAX_LAG + 3
"""Frames of the footage: enough for the motion personalisation at any lag."""
QUIET_S = 1.0
"""Silence before the speech begins."""
ALL_INPUTS = replace(RENDERERS["everyone"], name="toy_all", reference=True, colours_from_bank=False, inside_from_bank=False)
"""Renderer that takes all inputs. Its stripes have colours that no person has."""
TOY = Path(__file__).with_name("toy_method")


@pytest.fixture(scope="module", autouse=True)
def toy(stages: RunningStages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The toy's rows in the table, its packages beside those of the stages, and its networks beside those of the other renderers.

    The session's own stages begin before that: they would read the toy's weights, and keep them when the toy is gone.
    """
    weights = tmp_path_factory.mktemp("weights")
    for path in WEIGHTS_FOLDER.iterdir():
        (weights / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUBSTAGE_RENDER_WEIGHTS", str(weights))
        for package in (predictors, renderers):
            patch.setattr(package, "__path__", [*package.__path__, str(TOY / package.__name__.rpartition(".")[2])])
        patch.setitem(PREDICTORS, "toy", PredictorSpec(name="toy", package="toy", frames_ahead=2))
        for row in (RendererSpec(name="toy", needs_actor=True), ALL_INPUTS):
            patch.setitem(RENDERERS, row.name, row)
            patch.setitem(METHODS, row.name, Method(name=row.name, motion=PREDICTORS["toy"], renderer=row))
            import_module(f"{renderers.__name__}.{row.name}").write_network(weights)
        yield
    for name in [name for name in sys.modules if re.search(r"\.toy(_all)?(\.|$)", name)]:
        del sys.modules[name]


@pytest.fixture(scope="module", autouse=True)
def voice() -> Iterator[None]:
    """Count the speech of the footage as the man's own. It is another person's, from which an enrolment would learn nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "credible_lag", lambda lag, _: lag)
        yield


@pytest.fixture(scope="module")
def footage(media: Media, carphone: Path) -> Path:
    return write_video(media.root / "toy_footage.mkv", carphone, NUM_FRAMES)


def write_video(path: Path, carphone: Path, num_frames: int) -> Path:
    """A short clip of a real man, with sound: the beginning of the demo's speech."""
    silent = path.with_suffix(".mp4")
    write_short_clip(carphone, silent, num_frames)
    rate, samples = demo_speech()
    with av.open(str(silent)) as video, av.open(str(path), "w") as target:
        pictures = target.add_stream_from_template(video.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=rate, layout="mono")
        for packet in video.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                target.mux(packet)
        heard = av.AudioFrame.from_ndarray(samples[None, : rate * num_frames // 25], format="s16", layout="mono")
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
    samples, rate_hz = soundfile.read(SPEECH, dtype="int16")
    return rate_hz, samples


@dataclass(frozen=True)
class Installation:
    """Stages in this process, and the folder that they work in."""

    host: StageHost
    folder: Path
    settings: GatewaySettings

    @property
    def artefacts(self) -> ArtefactStore:
        return ArtefactStore(self.settings.artefacts_url)

    def blobs(self) -> set[str]:
        """Names of all files of the artefact store but the one that names the store's database."""
        return {path.name for path in Path(self.settings.artefacts_url).rglob("*") if path.is_file()} - {OWNER}

    @contextmanager
    def dubbing(self, request: DubRequest, on_progress: OnProgress = lambda *_: None) -> Iterator[DubOutcome]:
        """Dub. Within the context, the artefacts of an actor made in passing are there."""
        job = DubJob(request, self.host.stages, self.artefacts, self.folder / "jobs")
        outcome = self.host.run(job.run(on_progress))
        assert np.isin(outcome.plan.reason, RENDERED).mean() > 0.9
        yield outcome
        job.discard()

    def dub(self, request: DubRequest) -> DubOutcome:
        with self.dubbing(request) as outcome:
            return outcome


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("toy")
    settings = GatewaySettings(data_dir=folder / "data", artefacts_url=str(folder / "artefacts"))
    with StageHost(settings) as host:
        yield Installation(host, folder, settings)


@pytest.fixture(scope="module")
def dubbed(footage: Path, speech: Path, here: Installation) -> Path:
    """The toy's video, made by stages in this process."""
    request = DubRequest(footage=footage, speech=speech, output=here.folder / "dubbed.mkv", method="toy", codec="ffv1")
    assert here.dub(request).actor.renderer_trained
    return request.output


@dataclass(frozen=True)
class Videos:
    """Dubs of one actor with the renderer that takes all inputs: without a reference and with one; done."""

    request: DubRequest
    lit: DubRequest
    steps: list[str]


@pytest.fixture(scope="module")
def videos(footage: Path, speech: Path, here: Installation) -> Videos:
    request = DubRequest(footage=footage, speech=speech, output=here.folder / "all.mkv", method="toy_all", codec="ffv1")
    picture = here.folder / "reference.png"
    assert cv2.imwrite(str(picture), pictures_of(footage)[10, ..., ::-1])
    steps: list[str] = []
    with here.dubbing(request, lambda step, *_: steps.append(step) if step not in steps else None) as outcome:
        lit = replace(request, output=here.folder / "lit.mkv", reference=picture, actor=outcome.actor)
        here.dub(lit)
    return Videos(request, lit, steps)


@pytest.fixture(scope="module")
def all_inputs(videos: Videos) -> DubRequest:
    return videos.request


@pytest.fixture(scope="module")
def over_grpc(gateway_factory, loop_thread, tmp_path_factory) -> Iterator[RunningGateway]:
    """A gateway with five servers that know the toy."""
    with serving_stages(loop_thread, tmp_path_factory.mktemp("toy_grpc")) as stages:
        # The watermark differs between installations.
        running = gateway_factory(artefacts_url=str(stages.artefacts), watermark=False, **stages.endpoints())
        yield running
        loop_thread.run(running.server.drain(grace_s=0))


def pictures_of(path: Path) -> UInt8:
    """All frames of a video, uint8 [T, H, W, 3]."""
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def blue_added(before: UInt8, after: UInt8) -> Float64:
    """Grey levels by which the bluest pixels of each frame became bluer against red, float64 [T]."""
    change = after.astype(int) - before
    return np.percentile(change[..., 2] - change[..., 0], 99.5, axis=(1, 2))


def test_mouths_show_what_the_toy_drew(footage: Path, dubbed: Path) -> None:
    blue = blue_added(pictures_of(footage), pictures_of(dubbed))
    assert len(blue) == NUM_FRAMES
    quiet, speaking = blue[: int(QUIET_S * 25) - 3], blue[int(QUIET_S * 25) :]
    assert quiet.max() < 15  # the chin and the neck move with the jaw, and have other colours
    assert (speaking > 60).mean() > 0.3
    assert speaking.max() > 120


@pytest.mark.long  # test_all_inputs_over_grpc_give_the_same_video compares a video with more inputs
def test_the_toy_dubs_over_grpc_as_in_process(footage: Path, speech: Path, dubbed: Path, over_grpc: RunningGateway) -> None:
    output = footage.with_name("toy_grpc.mkv")
    with over_grpc.connect() as connection:
        result = client.dub(
            connection, footage=footage.name, speech=speech.name, output=output.name, method="toy", codec="ffv1"
        ).wait(timeout_s=300)
    assert result.num_frames == NUM_FRAMES
    np.testing.assert_array_equal(pictures_of(output), pictures_of(dubbed))


def test_bank_holds_preceding_frames(videos: Videos) -> None:
    """Enrolment makes what the bank holds of the frames before the bank."""
    order = [step.removeprefix("enrol ") for step in videos.steps if step.startswith("enrol ")]
    assert order == ["style", "motion", "identity", "coefficients", "bank", "renderer"]


@pytest.mark.long
def test_neural_texture_follows_speech(footage: Path, all_inputs: DubRequest) -> None:
    """A neural texture is learned from the bank and shown with the speech."""
    before, after = pictures_of(footage), pictures_of(all_inputs.output)
    # The stripes are as strong in silence as in speech, because the rows of a posteriorgram sum to one.
    blue = blue_added(before, after)
    assert len(blue) == NUM_FRAMES
    assert blue[2:-2].min() > 15
    # The first frame hears zeros before the sound.
    assert blue[0] < 0.8 * np.median(blue)


def test_reference_taken_from_face(videos: Videos) -> None:
    without, lit = (pictures_of(request.output).astype(np.int16) for request in (videos.request, videos.lit))
    assert np.percentile(np.abs(without - lit), 99.5, axis=(1, 2, 3)).min() > 15
    with av.open(str(videos.lit.output)) as video:
        assert any("appearance of another picture: no consent on record" in text for text in video.metadata.values())


def test_reference_without_face_refused(all_inputs: DubRequest, here: Installation, tmp_path: Path) -> None:
    picture = tmp_path / "wall.png"
    assert cv2.imwrite(str(picture), np.full((200, 200, 3), 128, np.uint8))
    request = replace(all_inputs, output=tmp_path / "refused.mkv", reference=picture)
    with pytest.raises(NoUsableFootageError, match=r"wall\.png shows no face"):
        here.dub(request)
    assert not request.output.exists()


def test_a_renderer_that_takes_no_reference_refuses_one(all_inputs: DubRequest, here: Installation, footage: Path) -> None:
    request = replace(all_inputs, method="toy", output=here.folder / "refused.mkv", reference=footage)
    with raised(InvalidRequestError, match=r"method toy takes no reference picture.*its renderer toy .*toy_all", field="reference"):
        here.dub(request)


@pytest.mark.long
def test_erased_actor_leaves_no_texture(carphone: Path, all_inputs: DubRequest, here: Installation, tmp_path: Path) -> None:
    before = here.blobs()
    video = write_video(tmp_path / "ann.mkv", carphone, 34)
    request = EnrolRequest(actor_id="ann", footage=video, method="toy_all", options=EnrolOptions(personalize_motion=False))
    with open_installation(here.settings) as place:
        enrolling = create_actor(
            request, here.host.stages, place.actors, place.artefacts, here.folder / "jobs", on_progress=lambda *_: None
        )
        actor = here.host.run(enrolling)
        assert {"style", "bank", "renderer", "identity"} <= actor.artefacts.keys()
        assert place.artefacts.get_arrays(actor.artefacts["renderer"])[ARRAY_NAME].shape == TEXTURE_SHAPE
        assert len(here.blobs() - before) == len({ref.sha256 for ref in actor.artefacts.values()})
        receipt = erase(place.actors, "ann")
        assert set(receipt.erased_sha256) == {ref.sha256 for ref in actor.artefacts.values()}
        assert here.blobs() == before
        spec = spec_from({"footage": str(video), "output": str(tmp_path / "refused.mkv"), "actor": "ann"})
        with pytest.raises(ActorError, match="no actor 'ann'"):
            Engine.of(place).request(spec, LocalFiles())
        # Nor can a dub that holds the erased artefacts go on.
        dub = replace(all_inputs, output=tmp_path / "refused.mkv", actor=actor.enrolled)
        with pytest.raises(ArtefactNotFoundError):
            here.dub(dub)
    assert not list(tmp_path.glob("refused*"))


@pytest.mark.long
def test_all_inputs_over_grpc_give_the_same_video(footage, speech, all_inputs, over_grpc) -> None:
    output = footage.with_name("toy_all_grpc.mkv")
    with over_grpc.connect() as connection:
        wanted = {"footage": footage.name, "speech": speech.name, "output": output.name, "codec": "ffv1"}
        client.dub(connection, method="toy_all", **wanted).wait(timeout_s=300)
        with pytest.raises(DubstageCallError, match="takes no reference picture") as caught:
            client.dub(connection, method="toy", reference=footage.name, **wanted)
    assert caught.value.field == "dub.reference_uri"
    np.testing.assert_array_equal(pictures_of(output), pictures_of(all_inputs.output))
