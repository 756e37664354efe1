"""Estimates of dubs, through the gateway's API and the command line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from dubstage.client import Connection
from dubstage.client import gateway as client
from gateway.cli.app import run
from gateway.dub.state.costs import PaceFile
from tests.integration.client_calls import dubbing
from tests.integration.servers import StartGateway
from tests.integration.videos import NUM_FRAMES, Media, write_short_clip
from tests.refusals import refused
from tests.written_pictures import write_pictures


def seconds(duration: Duration) -> float:
    return duration.ToTimedelta().total_seconds()


def test_estimate_is_the_dub(connection: Connection, media: Media, actor: str) -> None:
    """Frames are exact, and nothing is written."""
    for fit, frames in (("cut", NUM_FRAMES), ("loop", 38), ("pad", NUM_FRAMES)):
        request = client.dub.request(**dubbing("estimated.mp4", actor_id=actor, fit=fit))
        found = client.estimate(connection, request.dub)
        assert (found.num_frames, found.num_rendered) == (frames, frames)
        assert seconds(found.processor_duration) > seconds(found.wall_duration) > 0
        assert found.memory_bytes > 500e6
        assert found.disk_bytes > frames * 200_000
    learned = client.estimate(connection, client.dub.request(**dubbing("estimated.mp4") | {"personalize": True}).dub)
    assert seconds(learned.processor_duration) > seconds(found.processor_duration) + 10
    with refused(match="seed", reason="INVALID_REQUEST"):
        client.estimate(connection, client.dub.request(**dubbing("estimated.mp4", seed=-1)).dub)
    assert not (media.root / "estimated.mp4").exists()


@pytest.mark.long
def test_kept_analysis_is_not_estimated_again(start_gateway: StartGateway, media: Media, carphone: Path) -> None:
    """A second dub of a footage is estimated without tracking, and without training once a dub has trained networks."""
    write_short_clip(carphone, media.root / "kept.mp4", 25)
    with start_gateway(analysis_max_age_days=1.0).connect() as connection:

        def estimates() -> list[float]:
            """Processor seconds of a dub without training and with training."""
            of = dubbing("x.mp4", footage="kept.mp4")
            both = [client.dub.request(**of | {"personalize": trains}) for trains in (False, True)]
            return [seconds(client.estimate(connection, each.dub).processor_duration) for each in both]

        def dub(trains: bool) -> None:
            request = client.dub.request(**dubbing(f"kept-{trains}.mp4", footage="kept.mp4") | {"personalize": trains})
            client.dub.begin(connection, request).wait(timeout_s=300)

        first = estimates()
        dub(False)
        second = estimates()
        dub(True)
        third = estimates()
    assert first[1] > first[0] + 10
    assert second[0] < first[0] - 0.2
    assert second[1] - second[0] == pytest.approx(first[1] - first[0])
    assert third[1] == pytest.approx(second[0])


def test_single_picture_is_estimated(connection: Connection, media: Media, astronaut: Path) -> None:
    """A picture that a method makes a video of has an estimate too. A photograph costs as much as the picture of its video."""
    found = []
    for side in (1920, 2400):
        assert cv2.imwrite(str(media.root / "estimated.png"), cv2.resize(cv2.imread(str(astronaut)), (side, side)))
        request = client.dub.request(**dubbing("estimated.mp4", footage="estimated.png"))
        found.append(client.estimate(connection, request.dub))
    assert found[0].num_rendered == found[0].num_frames == found[1].num_rendered > 0
    for costs in ("processor_duration", "memory_bytes", "disk_bytes"):
        assert getattr(found[0], costs) == getattr(found[1], costs)


@pytest.mark.long
def test_dubs_correct_estimates(start_gateway: StartGateway, media: Media, long_footage: str) -> None:
    """A dub of this gateway corrects the time of the next estimate."""
    running = start_gateway()
    with running.connect() as connection:
        request = client.dub.request(**dubbing("paced.mp4", footage=long_footage))
        before = client.estimate(connection, request.dub)
        client.dub.begin(connection, request).wait(timeout_s=600)
        after = client.estimate(connection, request.dub)
    pace = PaceFile(running.data).read()
    assert (before.num_dubs, after.num_dubs, pace.num_dubs) == (0, 1, 1)
    assert seconds(after.wall_duration) == pytest.approx(seconds(before.wall_duration) * pace.wall)


def test_preview_is_estimated_as_shown(connection: Connection, media: Media, carphone: Path) -> None:
    """A preview has the frames of four seconds."""
    write_short_clip(carphone, media.root / "long.mp4", 110)
    request = client.dub.request(**dubbing("x.mp4", footage="long.mp4", preview=True))
    assert client.estimate(connection, request.dub).num_frames == 100


def test_footage_without_a_face(connection: Connection, media: Media) -> None:
    write_pictures(media.root / "grey.mp4", [np.full((240, 320, 3), 128, np.uint8)] * 10, "libx264")
    found = client.estimate(connection, client.dub.request(**dubbing("x.mp4", footage="grey.mp4")).dub)
    assert (found.num_frames, found.num_rendered) == (10, 0)


def test_command(media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    command = ["plan", str(media.footage), "--audio", str(media.speech), "--fit", "slow", "-o", str(tmp_path / "x.mp4")]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["numFrames"], found["numRendered"], found["numDubs"]) == ("38", "38", "0")
    assert run(["plan", str(tmp_path / "none.mp4")]) == 10
    assert "none.mp4" in capsys.readouterr().err
