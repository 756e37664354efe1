"""Videos with a timeline of their own, and people enrolled from a picture, through the gateway's API."""

import asyncio
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from dubstage.client import Connection
from dubstage.client import gateway as client
from gateway.actors import create
from gateway.dub.job import dub_job
from gateway.dub.state.scratch import SCRATCH
from gateway.media.writer import VideoWriter
from services.common.methods import METHODS
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.servers import RunningGateway, RunningStages, StartGateway
from tests.integration.videos import NUM_FRAMES, Media
from tests.refusals import refused

PICTURE = "astronaut.png"
SPEECH_FRAMES = math.ceil(1.5 * 25)


@pytest.fixture(scope="module", autouse=True)
def picture(media: Media) -> Path:
    path = media.root / PICTURE
    assert cv2.imwrite(str(path), astronaut()[..., ::-1])
    return path


def num_frames(path: Path) -> int:
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def test_retimed_video_has_speech_length(connection: Connection, actor: str, media: Media) -> None:
    result = client.dub(connection, **dubbing("retimed.mp4", actor_id=actor, fit="retime")).wait(timeout_s=300)
    assert result.num_frames == num_frames(media.root / "retimed.mp4") == SPEECH_FRAMES != NUM_FRAMES


@pytest.mark.long
def test_work_leaves_loop_free(gateway: RunningGateway, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders of dubs, enrolments and lists of faces are opened and removed in threads: other calls and streams go on."""
    on_loop: list[str] = []

    def watch(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **more: Any) -> Any:
            if name != "rmtree" or SCRATCH in str(args[0]):
                with suppress(RuntimeError):
                    asyncio.get_running_loop()
                    on_loop.append(name)
            return real(*args, **more)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (VideoWriter, "__enter__"),
        (VideoWriter, "__exit__"),
        (dub_job, "open_workspace"),
        (create, "open_workspace"),
        (shutil, "rmtree"),
    ):
        watch(owner, name)
    with gateway.connect() as connection:
        client.dub(connection, **dubbing("beside.mp4", footage=PICTURE)).wait(timeout_s=300)
        client.detect_faces(connection, footage=PICTURE).wait(timeout_s=300)
        client.enrol(connection, **enrolment("beside")).wait(timeout_s=300)
        client.erase_actor(connection, "beside")
    assert on_loop == []


@pytest.mark.long
def test_picture_actor_speaks_and_erases(start_gateway: StartGateway, stages: RunningStages, media: Media) -> None:
    running = start_gateway()
    before = stages.blobs()
    with running.connect() as connection:
        made = client.enrol(connection, **enrolment("pictured", footage=PICTURE)).wait(timeout_s=300)
        assert (made.method, made.num_enrolled_frames) == ("portrait", 1)
        result = client.dub(connection, **dubbing("pictured.mp4", actor_id="pictured", footage=PICTURE)).wait(timeout_s=300)
        assert (result.num_frames, result.num_dubbed) == (SPEECH_FRAMES, SPEECH_FRAMES)
        assert num_frames(media.root / "pictured.mp4") == SPEECH_FRAMES
        with refused(match="cannot be used live", reason="ACTOR_NOT_READY") as caught:
            next(client.live(connection, [np.zeros(640, np.float32)], actor_id="pictured", sample_rate_hz=16000))
        assert all(name in caught.value.message for name in METHODS if METHODS[name].live)
        receipt = client.erase_actor(connection, "pictured")
    assert {item.sha256 for item in made.artefacts} <= set(receipt.erased_sha256)
    assert stages.blobs() <= before


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"footage": PICTURE, "method": "dubstage"}, "method"),
        ({"fit": "retime", "method": "portrait"}, "fit"),
        ({"fit": "retime", "keep_audio": True}, "keep_audio"),
    ],
)
def test_what_does_not_go_together_is_told(gateway: RunningGateway, fields: dict[str, object], field: str) -> None:
    with gateway.connect() as connection, refused(reason="INVALID_REQUEST", field=f"dub.{field}"):
        client.dub(connection, **dubbing("refused.mp4", **fields)).wait(timeout_s=300)
