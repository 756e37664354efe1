"""Tests of CreateActor's messages, of consent records as messages, and of erasures whose callers leave."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dubstage.gateway.v1 import consent_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.actors.store import ActorStore
from gateway.api.actors import ActorEraser
from gateway.api.convert import enrol_request_from
from gateway.api.media import MediaFolder, MediaLocations, RequestMedia
from gateway.batch.erasure import other_stores
from gateway.consent.keys import signed
from gateway.consent.messages import consent_from, consent_message
from gateway.consent.record import digest_of
from gateway.live.streams import LiveStreams
from gateway.media.takes import MAX_TAKES
from gateway.operations.execution import BegunOperation
from gateway.operations.runner import OperationRunner
from gateway.operations.store import OperationStore
from services.common.errors import ActorError, BackendUnavailableError, InvalidRequestError, OverloadedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.failing import fail_once
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, settings
from tests.unit.consent.records import STUDIO, face, record
from tests.unit.media.made_footage import make_clip

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]

WHOLE = {
    "projects": ["night"],
    "languages": ["de"],
    "valid_from": "2026-02-01T00:00:00Z",
    "valid_until": "2999-02-01T00:00:00Z",
    "actor": "ann",
    "footage_sha256": ["0" * 64, "1" * 64],
    "face": face(),
}


def test_too_many_files_refused_early(tmp_path: Path) -> None:
    """Too many files of footage are refused before any is looked at."""
    media = RequestMedia(MediaLocations(MediaFolder(tmp_path), ""), lambda: tmp_path)
    message = pb.CreateActorRequest(actor_id="ann", footage_uri="none.mp4", more_footage_uris=["none.mp4"] * MAX_TAKES)
    with pytest.raises(InvalidRequestError, match=f"{MAX_TAKES + 1} files of footage were given; at most {MAX_TAKES}") as caught:
        enrol_request_from(message, media, threads=1)
    assert caught.value.field == "footage"


def test_footage_chooses_method_of_enrolment(tmp_path: Path, astronaut: Path) -> None:
    """A person is enrolled for `portrait` from a picture, and for `dubstage` from a video, if the request names no method."""
    make_clip(tmp_path / "ann.mp4")
    shutil.copyfile(astronaut, tmp_path / "ann.png")
    media = RequestMedia(MediaLocations(MediaFolder(tmp_path), "s3://people"), lambda: tmp_path)

    def method(**fields: str) -> str:
        return enrol_request_from(pb.CreateActorRequest(actor_id="ann", **fields), media, threads=1).method  # type: ignore[arg-type]

    assert method(footage_uri="ann.png") == method(footage_uri="s3://people/ann.png") == "portrait"
    assert method(footage_uri="ann.mp4") == method(footage_uri="s3://people/ann.mp4") == "dubstage"
    assert method(footage_uri="ann.png", method="everyone") == "everyone"


@pytest.mark.parametrize("fields", [{}, *({name: value} for name, value in WHOLE.items()), WHOLE])
def test_a_record_comes_through_a_message_unchanged(fields: dict[str, object]) -> None:
    for consent in (record(**fields), signed(record(**fields), STUDIO)):
        copy = consent_from(consent_pb2.ConsentRecord.FromString(consent_message(consent).SerializeToString()))
        assert copy == consent
        assert digest_of(copy) == digest_of(consent)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"actor": "Ann"}, "consent.actor"),
        ({"footage_sha256": ["0"]}, "consent.footage_sha256.0"),
        ({"face": {"network": "of-tests"}}, "consent.face.embedding"),
    ],
)
def test_wrong_subject_names_field(wrong: dict[str, object], field: str) -> None:
    """A wrong subject is refused by field and without its value."""
    message = consent_message(record())
    message.MergeFrom(consent_pb2.ConsentRecord(**wrong))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError) as caught:
        consent_from(message)
    assert caught.value.field == field


def test_an_embedding_that_is_none_is_not_told() -> None:
    message = consent_message(record(face=face()))
    message.face.embedding = message.face.embedding[4:]
    with pytest.raises(InvalidRequestError) as caught:
        consent_from(message)
    assert message.face.embedding[:40] not in caught.value.message


@pytest.fixture
def ann(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> str:
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    return "ann"


class Gateway:
    """The part of a gateway that erases. An operation that is cancelled ends when `lets_end` is set."""

    def __init__(self, actors: ActorStore, blobs: ArtefactStore) -> None:
        self.lets_end = asyncio.Event()
        self.begun = asyncio.Event()
        operations = OperationStore(actors.database)
        self.runner = OperationRunner(operations, {"dub": self._work}, max_concurrent=1, max_queued=1)
        live = LiveStreams(_no_stages, actors, blobs, max_message_bytes=1 << 20)
        self.eraser = ActorEraser(actors, self.runner, live, lambda: None, other_stores(actors.database))

    async def _work(self, operation: BegunOperation) -> bytes:
        self.begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            await self.lets_end.wait()
        return b""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Carry out what others ask for."""
        watching = asyncio.create_task(self.eraser.watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _no_stages() -> None:
    raise AssertionError("no stream is opened")


async def _until_erased(actors: ActorStore) -> None:
    async with asyncio.timeout(60):
        while actors.erasures.open():  # noqa: ASYNC110 - the watch erases
            await asyncio.sleep(0.01)


async def test_left_erasure_is_finished(actors: ActorStore, blobs: ArtefactStore, ann: str) -> None:
    """A caller leaves while work on the person ends. The person is erased all the same, and the next caller gets the receipt."""
    gateway = Gateway(actors, blobs)
    await gateway.runner.submit("dub", b"dub of ann", actor_id=ann)
    await gateway.begun.wait()
    erasing = asyncio.create_task(gateway.eraser.erase(ann))
    while not actors.erasures.open():  # noqa: ASYNC110 - another task asks
        await asyncio.sleep(0.01)
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)
    assert erasing.cancelled()
    assert actors.find(ann) is not None
    gateway.lets_end.set()
    async with gateway.watching():
        await _until_erased(actors)
    assert actors.find(ann) is None
    receipt = await gateway.eraser.erase(ann)
    assert (receipt.actor_id, len(receipt.document["erased"]["style"])) == ("ann", 1)
    await gateway.runner.close()


async def test_next_gateway_finishes_left_erasure(actors: ActorStore, blobs: ArtefactStore, ann: str) -> None:
    """A gateway ends while the gateway erases, and cancels the call and the watch."""
    first = Gateway(actors, blobs)
    await first.runner.submit("dub", b"dub of ann", actor_id=ann)
    await first.begun.wait()
    async with first.watching():
        erasing = asyncio.create_task(first.eraser.erase(ann))
        while not actors.erasures.open():  # noqa: ASYNC110 - another task asks
            await asyncio.sleep(0.01)
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)
    first.lets_end.set()
    await first.runner.close()
    async with Gateway(actors, blobs).watching():
        await _until_erased(actors)
    assert actors.find(ann) is None


async def test_receipt_survives_late_error(
    actors: ActorStore, blobs: ArtefactStore, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database restarts after the person was erased. The next caller gets the receipt, and once."""
    gateway = Gateway(actors, blobs)
    fail_once(monkeypatch, OperationStore, "forget_actor", BackendUnavailableError("the database restarts"))
    with pytest.raises(BackendUnavailableError):
        await gateway.eraser.erase(ann)
    assert actors.find(ann) is None
    receipt = await gateway.eraser.erase(ann)
    assert len(receipt.erased_sha256) == 4
    await gateway.runner.close()


async def test_failed_erasure_is_withdrawn(
    actors: ActorStore, blobs: ArtefactStore, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure that failed is the caller's again: the person can be used, and a receipt that arrived is forgotten."""
    gateway = Gateway(actors, blobs)
    fail_once(monkeypatch, OperationRunner, "stop_work_on", OverloadedError("work on ann has not stopped yet", retry_after_s=5.0))
    with pytest.raises(OverloadedError):
        await gateway.eraser.erase(ann)
    actors.erasures.check(ann)
    assert (await gateway.eraser.erase(ann)).actor_id == ann
    with pytest.raises(ActorError, match="no actor 'ann'"):
        await gateway.eraser.erase(ann)
    await gateway.runner.close()
