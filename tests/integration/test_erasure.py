"""`dubstage actor erase` while live streams, operations and dubs of other processes use the person."""

import json
import os
import threading
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import DubstageCallError
from dubstage.client import gateway as client
from gateway.actors.receipts import FORMAT
from gateway.actors.store import ActorStore
from tests.forked import Forked
from tests.integration.client_calls import dubbing, enrolment, until
from tests.integration.servers import RunningStages
from tests.integration.videos import OTHER, Media, write_short_clip

Samples = tuple[npt.NDArray[np.float32], int]


def environment(data: Path, stages: RunningStages) -> dict[str, str]:
    """Environment of a command that works in a gateway's data folder, with the running stages."""
    settings = {"data_dir": str(data), "artefacts_url": str(stages.artefacts), **stages.endpoints()}
    return {**os.environ, **{f"DUBSTAGE_{name.upper()}": value for name, value in settings.items()}}


def command(*arguments: str, data: Path, stages: RunningStages) -> Forked:
    return Forked(arguments, environment(data, stages), cwd=Path(__file__).parents[2])


@pytest.fixture
def long_work(media: Media, carphone: Path) -> dict[str, Any]:
    """Footage and speech of 24 s: the dub of them goes on while a command starts, however quick the machine is."""
    write_short_clip(carphone, media.root / "long.mp4", 120, times=5)
    with wave.open(str(media.speech)) as source, wave.open(str(media.root / "long.wav"), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(16 * source.readframes(source.getnframes()))
    return {"footage": "long.mp4", "speech": "long.wav"}


@pytest.mark.long
def test_erasure_ends_streams_and_operations(start_gateway, stages, samples, media, long_work) -> None:
    """An erasure beside a gateway ends live streams and operations, and leaves no row of the person."""
    speech, rate = samples
    running = start_gateway(max_concurrent_jobs=1, max_idle_s=600.0)
    before = stages.blobs()
    goes_on = threading.Event()

    def spoken() -> Iterator[npt.NDArray[np.float32]]:
        step = rate // 25
        for first in range(0, rate, step):
            yield speech[first : first + step]
        # Nothing more is said, and the stream stays open: its end does not wait for another frame.
        goes_on.wait(600)

    with running.connect() as connection:
        client.enrol(connection, **enrolment("shown", footage=OTHER)).wait(timeout_s=300)
        stream = client.live(connection, spoken(), actor_id="shown", sample_rate_hz=rate)
        next(stream)
        dub = client.dub(connection, **dubbing("of_shown.mp4", actor_id="shown", **long_work))
        erasing = command("actor", "erase", "shown", data=running.data, stages=stages)
        with pytest.raises(DubstageCallError) as caught:
            list(stream)
        goes_on.set()
        erased = erasing.ended(timeout=300)
        assert erased.returncode == 0, erased.stderr
        receipt = json.loads(erased.stdout)
        assert (caught.value.reason, "was erased" in caught.value.message) == ("ACTOR_NOT_READY", True)
        assert list(client.list_operations(connection)) == []
        assert list(client.list_actors(connection)) == []
        with pytest.raises(DubstageCallError, match="no operation"):
            dub.state()
    assert receipt["actor_id"] == "shown"
    assert receipt["format"] == FORMAT
    assert stages.blobs() <= before
    assert not list((running.data / "jobs").glob("*/"))
    assert not list(media.root.glob("*of_shown*"))
    assert b"box 7" not in (running.data / "actors.sqlite").read_bytes(), "the consent record is overwritten"


@pytest.mark.long
def test_erasure_ends_other_process_dub(start_gateway, stages, media, carphone, tmp_path) -> None:
    """A dub of another process ends with the actor and leaves no blob."""
    video, output = tmp_path / "long.mp4", tmp_path / "dubbed.mp4"
    write_short_clip(carphone, video, 120, times=2)
    running = start_gateway()
    before = stages.blobs()
    with running.connect() as connection:
        client.enrol(connection, **enrolment("busy", footage=OTHER)).wait(timeout_s=300)
    dub = ["dub", str(video), "--actor", "busy", "--audio", str(media.speech), "-o", str(output)]
    dubbing_it = command(*dub, data=running.data, stages=stages)
    until(lambda: bool(list((running.data / "jobs").glob("*/journal/[0-9a-f]*"))) or not dubbing_it.runs, seconds=300)
    with ActorStore(running.settings) as asking:
        # As the command does, without the time that it takes to start.
        assert asking.erasures.erase_or_ask("busy").actor_id == "busy"
    dubbed = dubbing_it.ended(timeout=300)
    assert dubbed.returncode == 11, dubbed.stderr
    assert "actor 'busy' was erased" in dubbed.stderr
    assert stages.blobs() <= before
    assert not list((running.data / "jobs").glob("*/"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4"]


def test_without_a_gateway_the_command_erases_by_itself(start_gateway, stop_gateway, stages) -> None:
    running = start_gateway()
    before = stages.blobs()
    with running.connect() as connection:
        client.enrol(connection, **enrolment("gone", footage=OTHER)).wait(timeout_s=300)
    stop_gateway(running)
    erased = command("actor", "erase", "gone", data=running.data, stages=stages).ended(timeout=300)
    assert json.loads(erased.stdout)["actor_id"] == "gone"
    assert stages.blobs() <= before
    with start_gateway(data_dir=running.data).connect() as connection:
        assert list(client.list_operations(connection)) == []
    again = command("actor", "erase", "gone", data=running.data, stages=stages).ended(timeout=300)
    assert "no actor 'gone' is enrolled" in again.stderr
    assert again.returncode == 11
