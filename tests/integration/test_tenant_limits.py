"""Limits of tenants at the doors of a real gateway: each refusal names its limit, and other tenants are served."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import Connection, DubstageCallError, batch
from dubstage.client import gateway as client
from gateway.settings import TENANTS_FOLDER
from tests.integration.client_calls import batch_ended, dubbing, enrolment, until
from tests.integration.servers import RunningGateway

# No other test has these tenants: one database counts the blobs of a tenant's store.
TOKENS = {"carl": "token-of-carl-1234", "dora": "token-of-dora-1234"}


@dataclass(frozen=True)
class Place:
    """A gateway with an actor of each tenant, and the file of limits."""

    running: RunningGateway
    media: Path
    file: Path

    def connect(self, tenant: str) -> Connection:
        return self.running.connect(token=TOKENS[tenant])

    def limit(self, **limits: int) -> None:
        self.file.write_text(json.dumps({"tenants": {"carl": limits}}))


@pytest.fixture(scope="module")
def gateway(module_gateway, media, long_footage, tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("limits")
    (folder / "limits.json").write_text("{}")
    for tenant in TOKENS:
        home = folder / "media" / TENANTS_FOLDER / tenant
        home.mkdir(parents=True)
        for file in (media.footage, media.speech, media.root / long_footage):
            shutil.copy(file, home)
    tokens, limits = [f"{tenant} {token}" for tenant, token in TOKENS.items()], folder / "limits.json"
    running = module_gateway(tokens=tokens, media_dir=folder / "media", tenant_limits_file=limits, max_live_streams=4)
    found = Place(running, folder / "media" / TENANTS_FOLDER, folder / "limits.json")
    for tenant in TOKENS:
        with found.connect(tenant) as connection:
            client.enrol(connection, **enrolment("anna")).wait(timeout_s=300)
    return found


@pytest.fixture
def place(gateway: Place) -> Iterator[Place]:
    yield gateway
    gateway.limit()


def refusal(call: Callable[[], object]) -> DubstageCallError:
    with pytest.raises(DubstageCallError) as caught:
        call()
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    assert caught.value.retry_after_s >= 1
    return caught.value


def begun(connection: Connection, output: str, footage: str = "footage.mp4") -> client.Operation[Any, Any]:
    return client.dub(connection, **dubbing(output, actor_id="anna", footage=footage))


def shot(output: str) -> Any:
    return batch.row("a", footage="footage.mp4", output=output, speech="speech.wav", actor_id="anna")


def test_tenant_dubs_are_bounded(place: Place, long_footage: str) -> None:
    """Dubs of a tenant are bounded and shots of batches wait."""
    place.limit(concurrent_dubs=1)
    with place.connect("carl") as carl, place.connect("dora") as dora:
        first = begun(carl, "first.mp4", long_footage)
        for call in (lambda: begun(carl, "second.mp4"), lambda: client.enrol(carl, **enrolment("another"))):
            assert refusal(call).reason == "TENANT_CONCURRENT_DUBS"
        batch.submit(carl, "waits", rows=[shot("shot.mp4")])
        begun(dora, "theirs.mp4").cancel()
        assert [one.state for one in batch.list_shots(carl, "waits")] == [1]
        first.cancel()
        assert batch_ended(carl, "waits").progress.num_done == 1
        until(lambda: not list(client.list_operations(carl, done=False)))
        begun(carl, "third.mp4").cancel()


def test_live_streams_of_a_tenant_are_bounded(place: Place, samples: tuple[npt.NDArray[np.float32], int]) -> None:
    speech, rate = samples
    place.limit(live_streams=1)
    sound = [speech[first : first + rate // 25] for first in range(0, len(speech), rate // 25)]
    with place.connect("carl") as carl, place.connect("dora") as dora:
        stream = client.live(carl, iter(sound), actor_id="anna", sample_rate_hz=rate)
        next(stream)
        second = refusal(lambda: list(client.live(carl, [], actor_id="anna", sample_rate_hz=rate)))
        assert second.reason == "TENANT_LIVE_STREAMS"
        stream.close()
        until(lambda: _opens(carl, rate))
        assert _opens(dora, rate)


def _opens(connection: Connection, rate: int) -> bool:
    with contextlib.suppress(DubstageCallError):
        return list(client.live(connection, [], actor_id="anna", sample_rate_hz=rate)) == []
    return False


def test_frames_of_a_minute_are_bounded(place: Place) -> None:
    place.limit(frames_per_minute=1)
    with place.connect("carl") as carl, place.connect("dora") as dora:
        # Frames of the tests before count too, if they are younger than a minute.
        with contextlib.suppress(DubstageCallError):
            begun(carl, "frames.mp4").wait(timeout_s=300)
        refused = refusal(lambda: begun(carl, "more.mp4"))
        assert refused.reason == "TENANT_FRAMES_PER_MINUTE"
        assert refused.retry_after_s <= 60
        live = refusal(lambda: list(client.live(carl, [], actor_id="anna", sample_rate_hz=16000)))
        assert live.reason == "TENANT_FRAMES_PER_MINUTE"
        begun(dora, "theirs.mp4").cancel()


def test_storage_is_bounded(place: Place) -> None:
    with place.connect("carl") as carl, place.connect("dora") as dora:
        used = sum(one.size_bytes for one in client.get_actor(carl, "anna").artefacts)
        place.limit(storage_bytes=used)
        for call in (
            lambda: client.enrol(carl, **enrolment("another")),
            lambda: begun(carl, "stored.mp4"),
            lambda: client.estimate(carl, client.dub.request(**dubbing("stored.mp4")).dub),
            lambda: batch.submit(carl, "stored", rows=[shot("batch.mp4")]),
        ):
            assert refusal(call).reason == "TENANT_STORAGE_BYTES"
        begun(dora, "theirs.mp4").cancel()
        place.limit(storage_bytes=1 << 40)
        begun(carl, "stored.mp4").cancel()
