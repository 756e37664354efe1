"""A person is enrolled from several files."""

import asyncio
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gateway.actors.create import EnrolRequest, create_actor, digests_of_files, joined_digest
from gateway.actors.store import ActorStore
from gateway.settings import GatewaySettings
from research.stage_host import StageHost
from services.common.errors import InvalidRequestError
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import UNPERSONALIZED, cut

SECONDS = 1.6


@pytest.fixture(scope="module")
def files(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two takes of a woman."""
    source, folder = clips.path("video/vr_face5.mp4"), tmp_path_factory.mktemp("takes")
    begins = (0.0, 3.0)
    return [cut(source, folder / f"take{number}.mkv", begin, begin + SECONDS) for number, begin in enumerate(begins)]


def request_of(files: list[Path]) -> EnrolRequest:
    more = {"method": "dubstage", "options": UNPERSONALIZED, "threads": 1}
    return EnrolRequest(actor_id="ada", footage=files[0], more_footage=tuple(files[1:]), **more)


def test_all_takes_count(files: list[Path], host: StageHost, settings: GatewaySettings, tmp_path: Path) -> None:
    store = ArtefactStore(settings.artefacts_url)
    told: set[str] = set()
    with ActorStore(settings.model_copy(update={"data_dir": tmp_path / "data"})) as actors:
        request, jobs = request_of(files), tmp_path / "jobs"
        made = create_actor(request, host.stages, actors, store, jobs, on_progress=lambda step, *_: told.add(step))
        actor = host.run(made)
    assert actor.enrolled.num_frames == pytest.approx(2 * 25 * SECONDS, abs=3)
    assert actor.enrolled.lag_frames is not None
    digests = digests_of_files(files)
    assert actor.footage_sha256 == joined_digest(digests) != joined_digest(digests[::-1])
    assert "join" in told
    assert not list((tmp_path / "jobs").iterdir())


def test_a_cancelled_enrolment_of_takes_leaves_nothing(files, host, settings, tmp_path) -> None:
    store = ArtefactStore(settings.artefacts_url)

    async def cancelled(actors: ActorStore) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell(*_: object) -> None:
            loop.call_soon_threadsafe(begun.set)

        making = create_actor(request_of(files), host.stages, actors, store, tmp_path / "jobs", on_progress=tell)
        work = asyncio.create_task(making)
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    with ActorStore(settings.model_copy(update={"data_dir": tmp_path / "data"})) as actors:
        host.run(cancelled(actors))
        assert not list(actors.list())
    assert not list((tmp_path / "jobs").iterdir())


def test_a_picture_is_not_joined_to_a_video(files: list[Path], host: StageHost, settings: GatewaySettings, tmp_path: Path) -> None:
    portrait = tmp_path / "portrait.png"
    assert cv2.imwrite(str(portrait), np.full((480, 640, 3), 90, np.uint8))
    request = EnrolRequest(actor_id="eve", footage=files[0], more_footage=(portrait,), method="portrait", options=UNPERSONALIZED)
    with ActorStore(settings.model_copy(update={"data_dir": tmp_path / "data"})) as actors:
        store = ArtefactStore(settings.artefacts_url)
        made = create_actor(request, host.stages, actors, store, tmp_path / "jobs", on_progress=lambda *_: None)
        with pytest.raises(InvalidRequestError, match="single picture"):
            host.run(made)
    assert not list((tmp_path / "jobs").iterdir())
