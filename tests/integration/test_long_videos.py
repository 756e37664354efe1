"""Videos that the face stage cannot track within its deadline, through real servers: refused before the work."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dubstage.client import Connection, DubstageCallError, rpcs
from dubstage.client import gateway as client
from dubstage.client.rpcs import Rpc
from gateway.stages.remote import RemoteStages
from tests.integration.client_calls import dubbing, enrolment, until
from tests.integration.servers import RunningGateway, RunningStages, StartGateway
from tests.integration.videos import NUM_FRAMES, Media, write_short_clip

VIDEO = "long_film.mp4"
DEADLINE_S = 2.0
TIMES = 50
"""2000 frames: a thousand frames in a second are more than a face stage can track."""


@pytest.fixture(scope="module")
def video(media: Media, carphone: Path) -> None:
    write_short_clip(carphone, media.root / VIDEO, NUM_FRAMES, times=TIMES)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Rpc[Any, Any], int]]:
    """Streams that gateways of this process opened: the RPC, and the number of requests that were sent."""
    opened: list[tuple[Rpc[Any, Any], int]] = []
    stream = RemoteStages.stream

    def counted(self: RemoteStages, rpc: Any, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        place = len(opened)
        opened.append((rpc, 0))

        async def sent() -> AsyncIterator[Any]:
            async for request in requests:
                opened[place] = (rpc, opened[place][1] + 1)
                yield request

        return stream(self, rpc, sent())

    monkeypatch.setattr(RemoteStages, "stream", counted)
    return opened


def dub(connection: Connection) -> Any:
    return client.dub(connection, **dubbing("long_dub.mp4", footage=VIDEO))


def enrol(connection: Connection) -> Any:
    return client.enrol(connection, **enrolment("long", footage=VIDEO))


@pytest.mark.usefixtures("video")
@pytest.mark.parametrize("begin", [dub, enrol])
def test_long_video_is_refused_first(
    begin: Callable[[Connection], Any],
    start_gateway: StartGateway,
    stages: RunningStages,
    media: Media,
    streams: list[tuple[Rpc[Any, Any], int]],
) -> None:
    """A video that cannot end before the deadline is refused before the work."""
    running: RunningGateway = start_gateway(stage_deadline_s=DEADLINE_S)
    before = stages.blobs()
    with running.connect() as connection:
        with pytest.raises(DubstageCallError) as caught:
            begin(connection).wait(timeout_s=120)
        assert not list(client.list_actors(connection))
    assert caught.value.reason == "INVALID_REQUEST"
    frames = TIMES * NUM_FRAMES
    advised = re.search(rf"its {frames} frames take about .*, which is enough for (\d+) frames \(0:0", str(caught.value))
    assert advised is not None
    assert 0 < int(advised[1]) < frames
    # One short call to the face stage, and no other work.
    assert [rpc for rpc, _ in streams] == [rpcs.face.TRACK]
    assert streams[0][1] < frames / 2
    assert stages.blobs() == before
    assert not list((running.data / "jobs").glob("*"))
    assert not list(media.root.glob("*long_dub*"))


@pytest.mark.usefixtures("video")
def test_long_deadline_lets_video_pass(start_gateway: StartGateway, streams: list[tuple[Rpc[Any, Any], int]]) -> None:
    """The same video is dubbed where the deadline is long enough."""
    running = start_gateway(stage_deadline_s=150.0)
    with running.connect() as connection:
        operation = dub(connection)
        try:
            # 2000 frames are more than 10 for each second of the deadline: the video is probed, and then tracked from its
            # beginning.
            until(lambda: [rpc for rpc, _ in streams].count(rpcs.face.TRACK) == 2 or operation.state().done)
            assert not operation.state().done
        finally:
            operation.cancel()
