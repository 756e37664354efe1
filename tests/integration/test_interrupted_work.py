"""Units of a job's work whose stream breaks off on the way: done again, they leave the same bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from dubstage.client import DubstageCallError, connect
from dubstage.client import gateway as client
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from gateway.methods import method_named
from gateway.pipeline.analysis import clip_of, frame_seconds
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.enrol import EnrolOptions, enrol, enrolment_rows
from gateway.pipeline.footage import analyse_footage, read_index
from gateway.pipeline.messages import timeline_of
from gateway.pipeline.plan import make_plan
from gateway.pipeline.records import FACE_RECORD, FEATURE_RECORD, MOTION_RECORD, RecordFile
from gateway.pipeline.rendering import FilmInputs, _render_run
from gateway.pipeline.speech import extract_features, motion_frames_for, predict_motion
from gateway.pipeline.windows import WindowConfig
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.remote import STAGE_NAMES, RemoteStages
from services.common.artefacts import ArtefactStore
from services.common.errors import BackendUnavailable
from tests.integration.conftest import OTHER, Media, RunningGateway, RunningStages, StartGateway, dubbing
from tests.integration.test_operations import progress, until
from tests.integration.test_serve import free_ports


class Interrupted:
    """Real stages whose streams break off, as those of a replica that goes away: once a kind, after `after` replies.

    Args:
        stages: what answers.
        after: replies of the first attempt; of single replies, the first one is lost.
    """

    def __init__(self, stages: Stages, after: int) -> None:
        self._stages = stages
        self._after = after
        self.attempts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        call = getattr(self._stages, name)

        def begin(*requests: Any) -> Any:
            self.attempts[name] = self.attempts.get(name, 0) + 1
            whole = self.attempts[name] > 1
            if name in ("build_bank", "fit_identity"):
                return self._single(call(*requests), whole)
            if name in ("encode_style", "estimate_lag", "list_models"):
                return call(*requests)
            return self._stream(call(*requests), whole)

        return begin

    async def _single(self, reply: Any, whole: bool) -> Any:
        found = await reply
        if not whole:
            raise BackendUnavailable("the replica went away", retry_after_s=0.0)
        return found

    async def _stream(self, replies: AsyncIterator[Any], whole: bool) -> AsyncIterator[Any]:
        count = 0
        async for reply in replies:
            if count == self._after and not whole:
                raise BackendUnavailable("the replica went away", retry_after_s=0.0)
            count += 1
            yield reply
        assert whole, f"broke off nowhere: {count} replies"


async def all_work(stages: Stages, media: Media, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Every kind of work of a dub, small: what it left, and the progress that was told."""
    folder.mkdir()
    told: list[str] = []
    info = probe(media.root / OTHER)
    method = method_named("ugc")
    duration = info.video.duration
    total = info.video.num_frames
    with (
        RecordFile(folder / "faces", FACE_RECORD) as faces,
        RecordFile(folder / "speech", FEATURE_RECORD) as speech,
        RecordFile(folder / "motion", MOTION_RECORD) as motion,
    ):
        cuts = await analyse_footage(stages, info, faces, threads=1, on_progress=lambda done: told.append(f"frame {done}"))
        await extract_features(stages, SoundReader(media.speech).speech(), speech, motion_frames_for(duration), duration)
        index = read_index(faces, cuts, total)
        face_rows = index.rows_of(0)
        seconds = frame_seconds(info)
        rows = enrolment_rows(faces, face_rows, seconds)
        clip, _ = clip_of(faces, rows, seconds)
        options = EnrolOptions(renderer_steps=2)
        actor = await enrol(stages, method, info, faces, rows, clip, None, options, lambda *_: None)
        await predict_motion(stages, method.motion, actor.style, speech, timeline_of(info), total, motion, block=8)
        config = WindowConfig(bank=actor.bank, renderer=actor.renderer, model=method.renderer, mode=0)
        plan = make_plan(index, 0, np.ones(total, np.float32))
        window = await _render_run(stages, FilmInputs(config, actor.geometry, plan, faces, motion), range(12))
    assert actor.renderer is not None
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    left |= {"bank": actor.bank.sha256.encode(), "renderer": actor.renderer.sha256.encode(), "window": window.box.tobytes()}
    return left, told


async def test_the_film_of_a_still_survives_lost_replicas(stages: RunningStages, media: Media, tmp_path: Path) -> None:
    portrait = tmp_path / "astronaut.png"
    assert cv2.imwrite(str(portrait), astronaut()[..., ::-1])
    settings = GatewaySettings(**stages.endpoints())

    async def film(stages_: Stages, name: str) -> bytes:
        output = tmp_path / f"{name}.mp4"
        request = DubRequest(footage=portrait, speech=media.speech, output=output, method="headpose")
        await DubJob(request, stages_, ArtefactStore(str(stages.artefacts)), tmp_path / name).run(lambda *_: None)
        return output.read_bytes()

    async with RemoteStages({name: settings.client_config(name) for name in STAGE_NAMES}) as remote:
        expected = await film(remote, "undisturbed")
        interrupted = Interrupted(remote, after=0)
        assert await film(interrupted, "interrupted") == expected
    assert {name for name, count in interrupted.attempts.items() if count > 1} >= {"fit_identity", "rotate_portrait", "render"}


@pytest.mark.parametrize("after", [1])
async def test_work_that_is_interrupted_leaves_the_same_bytes(
    stages: RunningStages, media: Media, tmp_path: Path, after: int
) -> None:
    settings = GatewaySettings(**stages.endpoints())
    async with RemoteStages({name: settings.client_config(name) for name in STAGE_NAMES}) as remote:
        expected, told = await all_work(remote, media, tmp_path / "undisturbed")
        interrupted = Interrupted(remote, after)
        found, told_again = await all_work(interrupted, media, tmp_path / "interrupted")
    assert found == expected
    assert told_again == told, "no frame is told of twice"
    twice = ("track", "extract_features", "build_bank", "personalize_renderer", "predict_motion", "retrieve_warp", "render")
    assert {name: interrupted.attempts[name] for name in twice} == dict.fromkeys(twice, 2)


def test_one_who_waits_for_a_dub_rides_over_a_restart_of_the_gateway(
    start_gateway: StartGateway, stop_gateway: Callable[[RunningGateway], None]
) -> None:
    (port,) = free_ports(1)
    first = start_gateway(port=port)
    results: list[pb.DubResult] = []

    def wait() -> None:
        with connect(f"127.0.0.1:{port}", timeout_s=30) as connection:
            results.append(client.dub(connection, dubbing("ridden.mp4", footage_uri=OTHER), timeout_s=90))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with first.connect() as connection:
        until(lambda: _frames_done(connection) >= 2)
    stop_gateway(first)
    time.sleep(0.5)
    start_gateway(port=port, data_dir=first.data)
    waiting.join(timeout=60)
    assert [result.num_frames for result in results] == [32]


def _frames_done(connection: Any) -> int:
    from google.longrunning import operations_pb2, operations_pb2_grpc

    stub = operations_pb2_grpc.OperationsStub(connection.channel)
    found = connection.unary(stub.ListOperations, operations_pb2.ListOperationsRequest()).operations
    return progress(connection, found[0].name).frames_done if found else 0


def test_a_gateway_that_stays_away_is_given_up(media: Media) -> None:
    (port,) = free_ports(1)
    begin = time.monotonic()
    with connect(f"127.0.0.1:{port}") as connection:
        with pytest.raises(DubstageCallError) as caught:
            client.dub(connection, dubbing("never.mp4"), outage_s=1.0)
        with pytest.raises(DubstageCallError):
            client.wait(connection, "operations/never", pb.DubResult, timeout_s=0.5)
        with pytest.raises(DubstageCallError):
            client.create_dub(connection, dubbing("never.mp4"))
    assert caught.value.code == "UNAVAILABLE"
    assert caught.value.retryable
    assert caught.value.unsent
    assert 0.5 < time.monotonic() - begin < 10
