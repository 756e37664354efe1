"""Units of a job's work whose stream breaks off on the way: done again, they leave the same bytes."""

import threading
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
from google.protobuf.message import Message
from skimage.data import astronaut

from dubstage.client import Connection, DubstageCallError, connect, rpcs
from dubstage.client import gateway as client
from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.texture.v1 import texture_pb2
from gateway.dub.analyse.face_records import read_index
from gateway.dub.analyse.footage import analyse_footage
from gateway.dub.analyse.frame_plan import make_plan
from gateway.dub.analyse.motion_clip import clip_of, enrolment_rows, frame_seconds
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.choices import EnrolOptions
from gateway.dub.convert import timeline_of
from gateway.dub.job.dub_job import DubJob
from gateway.dub.learn.coefficients import TrackedPerson
from gateway.dub.learn.enrol import Enrolment
from gateway.dub.render.all_windows import VideoInputs
from gateway.dub.render.windows import window_config
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.sound.speech import MotionRequest, extract_features, motion_frames_for, predict_motion
from gateway.dub.state.records import FACE_RECORD, FEATURE_RECORD, MOTION_RECORD, RecordFile
from gateway.dub.state.workspace import Workspace
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES, Stages
from gateway.stages.remote import RemoteStages
from services.common.errors import BackendUnavailableError
from services.common.methods import method_named
from services.common.store.artefacts import ArtefactStore
from tests.integration.client_calls import dubbing, progress, until
from tests.integration.servers import RunningGateway, RunningStages, StartGateway
from tests.integration.test_serve import free_ports
from tests.integration.videos import OTHER, Media
from tests.system.dubbing import WrappedStages

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Interrupted(WrappedStages):
    """Real stages whose streams break off, as those of a replica that goes away: once for each RPC, after `after` replies.

    Args:
        stages: the stages that answer.
        after: replies of the first attempt of a stream. The first reply of an upload is lost.
    """

    def __init__(self, stages: Stages, after: int) -> None:
        super().__init__(stages)
        self._after = after
        self.attempts: Counter[Rpc[Any, Any]] = Counter()

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        return await self._stages.unary(rpc, request)

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        self.attempts[rpc] += 1
        reply = await self._stages.upload(rpc, requests)
        if self.attempts[rpc] == 1:
            raise BackendUnavailableError("the replica went away", retry_after_s=0.0)
        return reply

    def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        return self._broken(rpc, self._stages.download(rpc, request))

    def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        return self._broken(rpc, self._stages.stream(rpc, requests))

    def _broken(self, rpc: Rpc[Q, R], replies: AsyncIterator[R]) -> AsyncIterator[R]:
        self.attempts[rpc] += 1
        return replies if self.attempts[rpc] > 1 else self._until_it_breaks(replies)

    async def _until_it_breaks(self, replies: AsyncIterator[R]) -> AsyncIterator[R]:
        count = 0
        async for reply in replies:
            if count == self._after:
                raise BackendUnavailableError("the replica went away", retry_after_s=0.0)
            count += 1
            yield reply
        raise AssertionError(f"broke off nowhere: {count} replies")


async def all_work(stages: Stages, media: Media, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Every kind of work of a dub, small: what it left, and the progress that was told."""
    folder.mkdir()
    told: list[str] = []
    info = probe(media.root / OTHER)
    method = method_named("dubstage")
    duration = info.video.duration
    total = info.video.num_frames
    with (
        RecordFile(folder / "faces", FACE_RECORD) as faces,
        RecordFile(folder / "speech", FEATURE_RECORD) as speech,
        RecordFile(folder / "motion", MOTION_RECORD) as motion,
        Workspace(folder.with_name(f"{folder.name}-job")) as workspace,
    ):
        cuts = await analyse_footage(stages, info, faces, threads=1, on_progress=lambda done: told.append(f"frame {done}"))
        await extract_features(stages, SoundReader(media.speech).speech(), speech, motion_frames_for(duration), duration)
        index = read_index(faces, cuts, total)
        face_rows = index.rows_of(0)
        seconds = frame_seconds(info)
        rows = enrolment_rows(face_rows, index.reason, seconds)
        clip, _ = clip_of(faces, rows, seconds)
        options = EnrolOptions(renderer_steps=2)
        enrolment = Enrolment(
            stages=stages,
            method=method,
            bank_person=TrackedPerson(info, faces, rows),
            first=rows,
            num_frames=len(rows),
            clip=clip,
            features=None,
            bank_positions=np.arange(len(rows), dtype=np.float64),
            workspace=workspace,
            options=options,
            on_step=lambda *_: None,
        )
        actor = await enrolment.run()
        request = MotionRequest(predictor=method.motion, style=actor.style, timeline=timeline_of(info), num_frames=total)
        await predict_motion(stages, request, speech, motion)
        plan = make_plan(index, 0, np.zeros(total, dtype=bool), range(total))
        config = replace(window_config(method, actor), mode=texture_pb2.WARP_MODE_UNSPECIFIED)
        looks = ShotLooks(faces, plan.row, plan.rendered(), index.shot_cuts)
        inputs = VideoInputs(
            stages,
            config,
            plan.rendered(),
            plan.row,
            faces,
            looks,
            index.shot_cuts,
            lambda begin, end: motion.read(begin, end)["mouth"],
        )
        window = await inputs.render_run(range(12))
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    left |= {"bank": actor.bank.sha256.encode(), "renderer": actor.renderer.sha256.encode(), "window": window.box.tobytes()}
    return left, told


@pytest.mark.long
async def test_the_video_of_a_still_survives_lost_replicas(stages: RunningStages, media: Media, tmp_path: Path) -> None:
    portrait, speech = tmp_path / "astronaut.png", tmp_path / "word.wav"
    assert cv2.imwrite(str(portrait), astronaut()[..., ::-1])
    with wave.open(str(media.speech)) as source, wave.open(str(speech), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getnframes() // 2))
    settings = GatewaySettings(**stages.endpoints())

    async def video(stages_: Stages, name: str) -> bytes:
        output = tmp_path / f"{name}.mp4"
        request = DubRequest(footage=portrait, speech=speech, output=output, method="portrait")
        await DubJob(request, stages_, ArtefactStore(str(stages.artefacts)), tmp_path / name).run(lambda *_: None)
        return output.read_bytes()

    async with RemoteStages({name: settings.client_config(name) for name in STAGE_NAMES}) as remote:
        expected = await video(remote, "undisturbed")
        interrupted = Interrupted(remote, after=0)
        assert await video(interrupted, "interrupted") == expected
    twice = {rpc for rpc, count in interrupted.attempts.items() if count > 1}
    assert twice >= {rpcs.face.FIT_IDENTITY, rpcs.texture.ROTATE_PORTRAIT, rpcs.render.RENDER}


@pytest.mark.parametrize("after", [1])
async def test_work_that_is_interrupted_leaves_the_same_bytes(stages, media, tmp_path, monkeypatch, after) -> None:
    monkeypatch.setattr("gateway.dub.sound.speech.FEATURE_BLOCK", 8)
    settings = GatewaySettings(**stages.endpoints())
    async with RemoteStages({name: settings.client_config(name) for name in STAGE_NAMES}) as remote:
        expected, told = await all_work(remote, media, tmp_path / "undisturbed")
        interrupted = Interrupted(remote, after)
        found, told_again = await all_work(interrupted, media, tmp_path / "interrupted")
    assert found == expected
    assert told_again == told, "no frame is told of twice"
    twice = (
        *(rpcs.face.TRACK, rpcs.audio.EXTRACT_FEATURES, rpcs.texture.BUILD_BANK, rpcs.render.PERSONALIZE),
        *(rpcs.motion.PREDICT_MOTION, rpcs.texture.RETRIEVE_WARP, rpcs.render.RENDER),
    )
    assert {rpc: interrupted.attempts[rpc] for rpc in twice} == dict.fromkeys(twice, 2)


def test_waiter_survives_gateway_restart(start_gateway: StartGateway, stop_gateway: Callable[[RunningGateway], None]) -> None:
    """A client that waits for a dub rides over a restart of the gateway."""
    (port,) = free_ports(1)
    first = start_gateway(port=port)
    results: list[pb.DubResult] = []

    def wait() -> None:
        with connect(f"127.0.0.1:{port}", timeout_s=60) as connection:
            results.append(client.dub(connection, **dubbing("ridden.mp4", footage=OTHER)).wait(timeout_s=300))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with first.connect() as connection:
        until(lambda: _frames_done(connection) >= 2)
    stop_gateway(first)
    time.sleep(0.5)
    start_gateway(port=port, data_dir=first.data)
    waiting.join(timeout=300)
    assert [result.num_frames for result in results] == [32]


def _frames_done(connection: Connection) -> int:
    found = list(client.list_operations(connection))
    return progress(found[0]).done if found else 0


def test_a_gateway_that_stays_away_is_given_up(media: Media) -> None:
    (port,) = free_ports(1)
    begin = time.monotonic()
    with connect(f"127.0.0.1:{port}") as connection:
        with pytest.raises(DubstageCallError) as caught:
            client.dub.begin(connection, client.dub.request(**dubbing("never.mp4")), outage_s=1.0)
        with pytest.raises(DubstageCallError):
            client.Operation(connection, "operations/never", client.DUB).wait(timeout_s=0.5)
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.retryable
    assert caught.value.unsent
    assert time.monotonic() - begin > 0.5
