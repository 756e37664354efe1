"""A gateway keeps the analysis of footage for further dubs, as long as the person may be shown."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.housekeeping import list_jobs
from gateway.settings import TENANTS_FOLDER
from tests.integration.client_calls import dubbing, enrolment, until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import Media, write_short_clip
from tests.system.dubbing import write_wav

TRACK, BANK = "dubstage.face.v1.FaceService/Track", "dubstage.texture.v1.TextureService/BuildBank"
"""Calls as the stages log them."""


@pytest.fixture
def footage(request: pytest.FixtureRequest, media: Media, carphone: Path) -> str:
    """Footage that no other test dubs: equal footage has equal blobs, and each gateway has a database of its own.

    Each test takes other frames of the video, which has 120. The man's mouth is covered before frame 74.
    """
    name = f"{request.node.name}.mp4"
    tests = sorted(item.name for item in request.session.items if item.path == request.path)
    write_short_clip(carphone, media.root / name, 33, end=118 - 2 * tests.index(request.node.name))
    write_wav(media.root / "other_words.wav", 0.1 * np.random.default_rng(5).standard_normal(16000), 16000)
    return name


@pytest.fixture
def keeping(start_gateway: StartGateway) -> RunningGateway:
    return start_gateway(analysis_max_age_days=1.0)


@pytest.fixture
def called() -> Iterator[Callable[[], set[str]]]:
    """Returns the calls of TRACK and BANK that have ended since the last look."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:

        def ended() -> set[str]:
            found = {line["rpc"] for line in lines if line["event"] == "rpc_finished"}
            lines.clear()
            return found & {TRACK, BANK}

        yield ended


def kinds(running: RunningGateway) -> list[str]:
    return [job.fact("kind") for job in list_jobs(running.data / "jobs")]


def test_second_dub_is_not_tracked(keeping, footage, stages, called) -> None:
    """A second speech takes over the faces and the person. With the analysis, everything that dubs have learned goes."""
    before = stages.blobs()
    with keeping.connect() as connection:
        client.dub(connection, **dubbing("first_words.mp4", footage=footage)).wait(timeout_s=300)
        assert kinds(keeping) == ["analysis"]
        learned = stages.blobs()
        assert learned > before
        assert {TRACK, BANK} <= called()
        second = client.dub(connection, **dubbing("second_words.mp4", footage=footage, speech="other_words.wav"))
        second.wait(timeout_s=300)
        assert not {TRACK, BANK} & called()
        assert (kinds(keeping), stages.blobs()) == (["analysis"], learned)
        client.enrol(connection, **enrolment("analysed", footage=footage)).wait(timeout_s=300)
        assert not {TRACK, BANK} & called()
        client.erase_actor(connection, "analysed")
    assert kinds(keeping) == []
    assert stages.blobs() == before


def test_enrolment_shares_tracks_within_tenant(start_gateway, footage, media, tmp_path, called) -> None:
    """A dub takes over what an enrolment of the same tenant has analysed; another tenant tracks its own."""
    tokens = {"acme": "token-of-acme-1234", "beta": "token-of-beta-1234"}
    (tmp_path / "tokens").write_text("".join(f"{tenant} {token}\n" for tenant, token in tokens.items()))
    for tenant in tokens:
        home = tmp_path / "media" / TENANTS_FOLDER / tenant
        home.mkdir(parents=True)
        for file in (media.root / footage, media.speech):
            shutil.copy(file, home)
    keeping = start_gateway(auth_token_file=tmp_path / "tokens", media_dir=tmp_path / "media", analysis_max_age_days=1.0)
    with keeping.connect(token=tokens["acme"]) as acme:
        client.enrol(acme, **enrolment("shared", footage=footage)).wait(timeout_s=300)
        assert {TRACK, BANK} <= called()
        client.dub(acme, **dubbing("after_enrolment.mp4", footage=footage)).wait(timeout_s=300)
        assert {TRACK, BANK} & called() == {BANK}, "the dub learns the person for itself"
    with keeping.connect(token=tokens["beta"]) as beta:
        client.enrol(beta, **enrolment("shared", footage=footage)).wait(timeout_s=300)
    assert {TRACK, BANK} <= called()
    with keeping.connect(token=tokens["acme"]) as acme:
        client.erase_actor(acme, "shared")
    left = {tenant: list_jobs(keeping.data / "tenants" / tenant / "jobs") for tenant in tokens}
    assert {tenant: [job.fact("kind") for job in jobs] for tenant, jobs in left.items()} == {"acme": [], "beta": ["analysis"]}


def test_cancelled_enrolment_leaves_nothing(keeping: RunningGateway, long_footage: str) -> None:
    with keeping.connect() as connection:
        enrolling = client.enrol(connection, **enrolment("cancelled", footage=long_footage))
        until(lambda: enrolling.state().progress.step != 0)
        enrolling.cancel()
        with pytest.raises(DubstageCallError, match="cancelled"):
            enrolling.wait(timeout_s=60)
    assert kinds(keeping) == []


def test_faces_and_dub_share_tracks(keeping: RunningGateway, footage: str, called: Callable[[], set[str]]) -> None:
    with keeping.connect() as connection:
        assert len(list(client.detect_faces(connection, footage=footage).wait(timeout_s=300).faces)) == 1
        assert kinds(keeping) == ["analysis"]
        assert TRACK in called()
        client.dub(connection, **dubbing("after_faces.mp4", footage=footage)).wait(timeout_s=300)
    assert {TRACK, BANK} & called() == {BANK}


def test_erasure_removes_analyses_of_actor(keeping: RunningGateway, footage: str) -> None:
    """The list of faces, which has pictures of the person, goes too."""
    with keeping.connect() as connection:
        faces = client.detect_faces(connection, footage=footage)
        assert faces.wait(timeout_s=300).faces[0].picture
        client.enrol(connection, **enrolment("passing", footage=footage)).wait(timeout_s=300)
        client.dub(connection, **dubbing("with_actor.mp4", footage="footage.mp4", actor_id="passing")).wait(timeout_s=300)
        assert kinds(keeping) == ["analysis", "analysis"], "of the enrolment's footage, and of the dub's"
        client.erase_actor(connection, "passing")
        with pytest.raises(DubstageCallError, match="no operation"):
            faces.state()
    assert kinds(keeping) == []
