"""Videos that outlast the deadline of a call, and stages that are killed: real servers, and the bytes of an undisturbed run."""

import asyncio
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dubstage.client import gateway as client
from dubstage.client import rpcs
from dubstage.client.rpcs import Rpc
from dubstage.common.v1 import common_pb2
from gateway.cli.serve import MODULES
from gateway.dub.analyse import footage, tracking_point
from gateway.dub.analyse.face_records import FaceIndex, FaceMeans, faces_note
from gateway.dub.analyse.footage import AHEAD, analyse_footage
from gateway.dub.analyse.tracking_point import TrackingCheckpoint
from gateway.dub.learn.analysis import track_footage
from gateway.dub.render import all_windows
from gateway.dub.sound.speech import MotionRequest, extract_features, motion_frames_for, predict_motion
from gateway.dub.state.records import FACE_RECORD, FEATURE_RECORD, MOTION_RECORD, RecordFile
from gateway.dub.state.workspace import CHECKPOINT, Workspace
from gateway.media.probe import probe
from gateway.media.sound import SoundReader, Speech
from gateway.provenance.binding import media_sha256
from gateway.settings import GatewaySettings
from gateway.stages import calls
from gateway.stages.interface import STAGE_NAMES, stage_of
from gateway.stages.remote import RemoteStages
from services.common.errors import BackendUnavailableError
from services.common.methods import method_named
from services.common.wire.convert import timeline_to_proto
from services.common.wire.timeline import Timeline
from tests.contract.motion.calls import head_request
from tests.integration.client_calls import dubbing, enrolment, until
from tests.integration.server_process import ServerProcess
from tests.integration.servers import RunningGateway, RunningStages
from tests.integration.test_serve import free_ports
from tests.integration.videos import NUM_FRAMES, Media, write_short_clip

DEADLINE_S = 6.0
TIMES = 15
"""600 frames."""
EVERY = 25
"""Frames between two states of the tracker, where a test says so: half of the usual number."""
FRAMES = 2 * NUM_FRAMES
"""Frames of a video of three states and a part."""
SPEECH_S = 40


@pytest.fixture(scope="module")
def video(media: Media, carphone: Path) -> Path:
    path = media.root / "long_video.mp4"
    write_short_clip(carphone, path, NUM_FRAMES, times=TIMES)
    return path


def remote(stages: RunningStages, **settings: Any) -> RemoteStages:
    chosen = GatewaySettings(**stages.endpoints(), **settings)
    return RemoteStages({name: chosen.client_config(name) for name in STAGE_NAMES})


@dataclass
class Broken:
    """Calls of the gateways of this process to the tracker. A call breaks off after `after` answers, up to `times` calls."""

    after: int
    times: int
    begun: int = 0
    sent: int = 0


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    found = Broken(0, 0)
    stream = RemoteStages.stream

    async def replies(self: RemoteStages, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        found.begun += 1

        async def sent() -> AsyncIterator[Any]:
            async for request in requests:
                found.sent += request.HasField("frame")
                yield request

        answered, breaks = 0, found.begun <= found.times
        async for reply in stream(self, rpc, sent()):
            if breaks and answered == found.after:
                raise BackendUnavailableError("the replica went away", retry_after_s=0.0)
            answered += 1
            yield reply

    def counted(self: RemoteStages, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return replies(self, rpc, requests) if rpc is rpcs.face.TRACK else stream(self, rpc, requests)

    monkeypatch.setattr(RemoteStages, "stream", counted)
    return found


async def records(stages: RemoteStages, path: Path, file: Path) -> tuple[bytes, list[int]]:
    """The face records and shot cuts of a video."""
    told: list[int] = []
    with RecordFile(file, FACE_RECORD) as faces:
        cuts = await analyse_footage(stages, probe(path), faces, threads=1, on_progress=told.append, embed_every=7)
    assert told == sorted(set(told))
    return file.read_bytes(), cuts


async def tracked_index(stages: RemoteStages, path: Path, folder: Path, end_at: int | None = None) -> tuple[FaceIndex, bytes]:
    """Track a video in a job's folder as one process does, which ends after so many frames; None: at the end of the video."""
    ending = asyncio.Event()

    def on_frame(done: int) -> None:
        if end_at is not None and done >= end_at:
            ending.set()

    with Workspace(folder) as workspace:
        tracking = asyncio.ensure_future(track_footage(stages, probe(path), workspace, threads=1, on_frame=on_frame, embed=True))
        ended = asyncio.ensure_future(ending.wait())
        await asyncio.wait([tracking, ended], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if end_at is not None:
            tracking.cancel()
        index = await tracking
        assert not workspace.redone
    return index, (folder / "faces.bin").read_bytes()


@pytest.fixture(scope="module")
def restarted(media: Media, carphone: Path) -> Path:
    """A video of several states of the tracker."""
    path = media.root / "restarted.mp4"
    write_short_clip(carphone, path, NUM_FRAMES, times=2)
    return path


@pytest.fixture(scope="module")
def undisturbed(stages: RunningStages, restarted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """The face records and shot cuts of that video, from one call."""

    async def tracked() -> tuple[bytes, list[int]]:
        async with remote(stages) as connected:
            return await records(connected, restarted, tmp_path_factory.mktemp("undisturbed") / "whole")

    return asyncio.run(tracked())


@pytest.fixture
def frequent_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage, "STATE_EVERY", EVERY)


@pytest.mark.usefixtures("frequent_states")
async def test_another_process_goes_on_with_tracking(stages, restarted, tmp_path, broken, monkeypatch) -> None:
    """A gateway that is restarted twice while it tracks does only the frames since the last checkpoint again: the same bytes."""
    monkeypatch.setattr(tracking_point, "CHECKPOINT_S", 0.0)
    path = restarted
    async with remote(stages) as connected:
        expected, expected_bytes = await tracked_index(connected, path, tmp_path / "whole")
        broken.sent = 0
        for end_at in (EVERY + 10, 2 * EVERY + 10):
            with pytest.raises(asyncio.CancelledError):
                await tracked_index(connected, path, tmp_path / "restarted", end_at)
        found, found_bytes = await tracked_index(connected, path, tmp_path / "restarted")
    assert found_bytes == expected_bytes
    assert found.shot_cuts == expected.shot_cuts
    assert faces_note(found.embeddings) == faces_note(expected.embeddings) != []
    assert broken.sent <= FRAMES + 2 * (10 + 4 * AHEAD + 8)
    assert not (tmp_path / "restarted" / "faces.part").exists()


async def test_checkpoint_without_embeddings_is_not_used(stages, restarted, tmp_path, broken, monkeypatch) -> None:
    """A dub that compares people tracks the whole video, if an earlier one that compared nobody was interrupted."""
    monkeypatch.setattr(tracking_point, "CHECKPOINT_S", 0.0)
    path, folder = restarted, tmp_path / "job"
    async with remote(stages) as connected:
        with Workspace(folder) as workspace:
            checkpoint = TrackingCheckpoint(folder / CHECKPOINT, 0, workspace.faces, FaceMeans())
            point, cuts = checkpoint.restore()
            point.next_frame, point.state = EVERY, common_pb2.StreamState()
            checkpoint.save(point, cuts)
        broken.sent = 0
        index, _ = await tracked_index(connected, path, folder)
    assert index.embeddings
    assert broken.sent == FRAMES


@pytest.mark.usefixtures("frequent_states")
async def test_lost_call_repeats_few_frames(stages, restarted, undisturbed, tmp_path, broken) -> None:
    """Tracking goes on from the last state when a call breaks off, again and again."""
    broken.after, broken.times = EVERY + 10, 2
    async with remote(stages) as connected:
        assert await records(connected, restarted, tmp_path / "broken") == undisturbed
    assert broken.begun == 3
    # Ten answered frames are tracked again, and the frames that were under way.
    assert broken.sent <= FRAMES + 2 * (10 + 3 * AHEAD + 8)


@pytest.mark.usefixtures("frequent_states")
async def test_calls_end_before_deadline(stages, restarted, undisturbed, tmp_path, broken, monkeypatch) -> None:
    """A call that comes near the deadline is ended at a state, and no frame is answered twice."""
    monkeypatch.setattr(calls, "NEARLY_OVER", 0.0)
    async with remote(stages) as connected:
        assert await records(connected, restarted, tmp_path / "parts") == undisturbed
    assert broken.begun == 1 + FRAMES // EVERY


async def test_other_stage_version_begins_anew(stages, media, tmp_path, broken, monkeypatch) -> None:
    """A stage that does not take the state tracks from the beginning."""
    monkeypatch.setattr(footage, "STATE_EVERY", 10)
    async with remote(stages) as connected:
        expected = await records(connected, media.footage, tmp_path / "whole")
        broken.begun, broken.after, broken.times = 0, 15, 1
        stream = RemoteStages.stream

        async def other(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for request in requests:
                if request.config.HasField("resume"):
                    request.config.resume.layout += 1
                yield request

        monkeypatch.setattr(RemoteStages, "stream", lambda self, rpc, requests: stream(self, rpc, other(requests)))
        assert await records(connected, media.footage, tmp_path / "again") == expected
    assert broken.begun == 3


def long_speech(media: Media) -> Speech:
    """The short speech of the tests again and again for 40 s. Its length is no whole number of frames."""
    once = SoundReader(media.speech).speech()
    samples = np.concatenate(list(once.chunks))
    repeated = np.tile(samples, (SPEECH_S * once.sample_rate_hz // len(samples) + 1, 1))[: SPEECH_S * once.sample_rate_hz]
    return Speech(once.sample_rate_hz, once.channels, np.array_split(repeated, 37))


@pytest.mark.long
async def test_speech_goes_on(stages: RunningStages, media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features and motion of long speech take several calls when calls end early, or break off, and have the same bytes."""
    speech, duration, method = long_speech(media), Fraction(SPEECH_S), method_named("portrait")
    begun: Counter[Rpc[Any, Any]] = Counter()
    sent: Counter[Rpc[Any, Any]] = Counter()
    breaks = 0
    stream = RemoteStages.stream

    async def counted(self: RemoteStages, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        begun[rpc] += 1
        lost = begun[rpc] <= breaks

        async def counting() -> AsyncIterator[Any]:
            async for request in requests:
                sent[rpc] += request.features.num_frames if rpc is rpcs.motion.PREDICT_MOTION else len(request.chunk.pcm_f32)
                yield request

        states = 0
        async for reply in stream(self, rpc, counting()):
            if lost and states and not reply.HasField("state"):
                raise BackendUnavailableError("the replica went away", retry_after_s=0.0)
            states += reply.HasField("state")
            yield reply

    monkeypatch.setattr(RemoteStages, "stream", counted)

    async def heard(connected: RemoteStages, name: str) -> tuple[bytes, bytes]:
        begun.clear()
        sent.clear()
        files, told = [tmp_path / f"{kind}-{name}" for kind in "fm"], list[int]()
        with RecordFile(files[0], FEATURE_RECORD) as features, RecordFile(files[1], MOTION_RECORD) as motion:
            frames, kinds = motion_frames_for(duration), method.motion.features
            await extract_features(connected, speech, features, frames, duration, kinds)
            timeline = timeline_to_proto(Timeline(rate=Fraction(30000, 1001)))
            request = MotionRequest(predictor=method.motion, style=style, timeline=timeline, num_frames=SPEECH_S * 30 - 2)
            await predict_motion(connected, request, features, motion, on_frames=told.append)
            assert told == sorted(set(told))
        return files[0].read_bytes(), files[1].read_bytes()

    async with remote(stages) as connected:
        still = head_request(1)
        still.method = method.motion.name
        style = (await connected.unary(rpcs.motion.ENCODE_STYLE, still)).style
        expected = await heard(connected, "whole")
        assert set(begun.values()) == {1}
        whole = dict(sent)
        breaks = 3
        assert await heard(connected, "lost") == expected
        assert set(begun.values()) == {4}
        # A call begins behind the states of the calls before, not anew.
        assert all(sent[rpc] < 2 * whole[rpc] for rpc in whole)
        breaks = 0
        monkeypatch.setattr(calls, "NEARLY_OVER", 0.0)
        assert await heard(connected, "deadline") == expected
        assert min(begun.values()) >= 3


def dubbed(running: RunningGateway, media: Media, name: str, video: Path, **fields: str) -> str:
    with running.connect() as connection:
        client.dub(connection, **dubbing(name, footage=video.name, **fields)).wait(timeout_s=900)
    return media_sha256(media.root / name)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_video_outlasts_deadline(start_gateway, stop_gateway, media, video, broken, monkeypatch) -> None:
    """600 frames are dubbed although each call ends after six seconds."""
    first = start_gateway()
    with first.connect() as connection:
        client.enrol(connection, **enrolment("driver")).wait(timeout_s=300)
    broken.begun = 0
    expected = dubbed(first, media, "whole.mp4", video, actor_id="driver")
    assert broken.begun == 1
    stop_gateway(first)
    monkeypatch.setattr(calls, "NEARLY_OVER", 0.25)
    # On a machine with other work, four windows at once would take longer than six seconds.
    monkeypatch.setattr(all_windows, "WINDOWS_AHEAD", 0)
    # The watermark is of the gateway's key, which lies in its data folder.
    second = start_gateway(stage_deadline_s=DEADLINE_S, data_dir=first.data)
    assert dubbed(second, media, "parts.mp4", video, actor_id="driver") == expected
    assert broken.begun >= 3


@dataclass
class Killable:
    """A stage as a process of its own, at one address."""

    name: str
    port: int
    folder: Path
    environment: dict[str, str]
    started: int = 0

    def start(self) -> None:
        self.started += 1
        own = {"DUBSTAGE_PORT": str(self.port), "DUBSTAGE_READY_FILE": str(self._ready())}
        self.process = ServerProcess(MODULES[self.name], {**self.environment, **own}, self.folder / f"{self.name}.log")

    def wait_until_ready(self) -> None:
        until(self._ready().exists, seconds=240)

    def kill(self) -> None:
        self.process.send(signal.SIGKILL)
        self.process.ended(timeout=60)

    def _ready(self) -> Path:
        return self.folder / f"{self.name}-{self.started}.ready"


@pytest.fixture
def killable(tmp_path: Path, stages: RunningStages) -> Iterator[dict[str, Killable]]:
    store = tmp_path / "store"
    store.mkdir()
    environment = {**os.environ, "DUBSTAGE_ARTEFACTS_URL": str(store), "DUBSTAGE_COMPUTE_THREADS": "1"}
    found = {name: Killable(name, port, tmp_path, environment) for name, port in zip(STAGE_NAMES, free_ports(5), strict=True)}
    try:
        for stage in found.values():
            stage.start()
        for stage in found.values():
            stage.wait_until_ready()
        yield found
    finally:
        for stage in found.values():
            stage.kill()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_stage_in_every_pass(start_gateway, media, carphone, killable, tmp_path, monkeypatch) -> None:
    """Each stage is killed once in each of its calls that stream, and started again, and the video has the same bytes."""
    path = media.root / "killed_video.mp4"
    write_short_clip(carphone, path, NUM_FRAMES, times=3)
    ends = {f"{name}_endpoint": f"127.0.0.1:{stage.port}" for name, stage in killable.items()}
    store = killable["face"].environment["DUBSTAGE_ARTEFACTS_URL"]
    running = start_gateway(artefacts_url=store, **ends)
    expected = dubbed(running, media, "undisturbed.mp4", path)
    killed: Counter[Rpc[Any, Any]] = Counter()
    stream, upload = RemoteStages.stream, RemoteStages.upload
    lock = threading.Lock()

    def kill(rpc: Rpc[Any, Any]) -> None:
        with lock:
            if killed[rpc]:
                return
            killed[rpc] += 1
            stage = killable[stage_of(rpc)]
            stage.kill()
            stage.start()

    async def killing(self: RemoteStages, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        answered = 0
        async for reply in stream(self, rpc, requests):
            if answered == (footage.STATE_EVERY + 5 if rpc is rpcs.face.TRACK else 0):
                kill(rpc)
            answered += 1
            yield reply

    async def uploading(self: RemoteStages, rpc: Any, requests: AsyncIterator[Any]) -> Any:
        async def sent() -> AsyncIterator[Any]:
            count = 0
            async for request in requests:
                yield request
                count += 1
                if count == 2:
                    kill(rpc)

        return await upload(self, rpc, sent())

    monkeypatch.setattr(RemoteStages, "stream", killing)
    monkeypatch.setattr(RemoteStages, "upload", uploading)
    assert dubbed(running, media, "killed.mp4", path) == expected
    assert set(killed) >= {rpcs.audio.EXTRACT_FEATURES, rpcs.face.TRACK, rpcs.motion.PREDICT_MOTION, rpcs.render.RENDER}
    assert set(killed) >= {rpcs.texture.BUILD_BANK, rpcs.texture.RETRIEVE_WARP, rpcs.texture.SELECT_INSIDES}
    shutil.rmtree(tmp_path / "store")
