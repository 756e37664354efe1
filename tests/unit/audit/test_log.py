"""The audit log of one database: entries, who asked, faces, and what of an erased person stays."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text, update

from gateway.actors.store import ActorStore
from gateway.audit.entries import AuditEvent, ChainBrokenError, EventKind
from gateway.audit.log import AuditLog, AuditRow
from gateway.audit.protection import record_settings, recorded_signing_key
from gateway.audit.work import recorded
from gateway.consent.record import digest_of
from gateway.settings import GatewaySettings, RequireConsent
from gateway.signatures import installation_key
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ActorGeometry
from services.common.server.call_context import Caller, set_current_caller
from services.common.store.artefacts import ArtefactStore
from tests.erasing import erase
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]


OTHER = CONSENT.model_copy(update={"subject": "Bob"})


@pytest.fixture
def log(actors: ActorStore) -> AuditLog:
    return actors.audit


@pytest.fixture
def ann(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> str:
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    return "ann"


@pytest.fixture
def bob(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> str:
    actors.create("bob", method="dubstage", enrolled=learned(blobs, "bob", geometry), footage_sha256="1" * 64, consent=OTHER)
    return "bob"


def lines(log: AuditLog) -> list[str]:
    return [row.line for row in log.lines()]


def test_enrolment_entry_has_no_names(log: AuditLog, ann: str) -> None:
    """An enrolment leaves an entry with the digest of the record and without names."""
    (line,) = lines(log)
    entry = json.loads(line)
    assert (entry["sequence"], entry["previous"], entry["event"]) == (1, "0" * 64, "actor.created")
    assert entry["consents"] == [digest_of(CONSENT)]
    assert [len(face) for face in entry["faces"]] == [32]
    assert "ann" not in line.lower()
    assert entry["time"].endswith("Z")


def test_entry_is_atomic_with_change(
    actors: ActorStore, log: AuditLog, ann: str, blobs: ArtefactStore, geometry: ActorGeometry
) -> None:
    """An entry is written with what it records or not at all."""
    with pytest.raises(InvalidRequestError, match="there is an actor"):
        actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=None)
    assert len(lines(log)) == 1


def test_face_has_one_pseudonym(actors: ActorStore, log: AuditLog, ann: str) -> None:
    """One face has one name in all entries until the person is erased."""
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1", actor_ids=(ann,)))
    erase(actors, ann)
    created, begun, erased = (json.loads(line) for line in lines(log))
    assert created["faces"] == begun["faces"] == erased["faces"]
    assert erased["event"] == "actor.erased"
    assert [entry["actor_ids"] for entry in log.newest(10)] == [[""]] * 3, "nothing ties the name to the person"
    assert log.verify().sequence == 3


def test_dubs_are_counted_by_actor(actors: ActorStore, log: AuditLog, ann: str) -> None:
    """Finished dubs count, whoever began them; begun and failed ones, and those of others, do not."""
    for work, end in (("dubs/1", EventKind.DUB_ENDED), ("operations/2", EventKind.DUB_ENDED), ("dubs/3", EventKind.DUB_FAILED)):
        log.record(AuditEvent(event=EventKind.DUB_BEGUN, work=work, actor_ids=(ann,)))
        log.record(AuditEvent(event=end, work=work), continues=work)
    log.record(AuditEvent(event=EventKind.DUB_ENDED, work="dubs/4"))
    assert log.counts(EventKind.DUB_ENDED, [ann, "ben"]) == {ann: 2}
    erase(actors, ann)
    assert log.counts(EventKind.DUB_ENDED, [ann]) == {}


def test_erased_person_leaves_database_file(actors: ActorStore, log: AuditLog, settings: GatewaySettings, ann: str) -> None:
    """Nothing of an erased person is in the file of the database."""
    actors.consents.withdraw_of(ann, CONSENT)
    erase(actors, ann)
    actors.close()
    content = (settings.data_dir / "actors.sqlite").read_bytes()
    assert CONSENT.subject.encode() not in content
    assert b'"ann"' not in content
    assert b"actor.erased" in content


def test_later_work_reveals_no_erased_person(actors: ActorStore, log: AuditLog, ann: str) -> None:
    """Work after the erasure ties nothing to the person again."""
    erase(actors, ann)
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/late", actor_ids=(ann,)))
    assert json.loads(lines(log)[-1])["faces"] == []
    assert log.newest(10, actor_id=ann) == []


def test_end_entry_repeats_the_start(log: AuditLog, ann: str) -> None:
    """The end of work has the caller the face and the records of its beginning."""

    async def work() -> None:
        set_current_caller(Caller("studio", "00112233aabbccdd"))
        begun = AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1", actor_ids=(ann,), consents=("f" * 64,))
        async with recorded(log, begun) as record:
            # The end is written by a process that resumed the work, and that nobody has called.
            set_current_caller(Caller())
            record.outputs = ("e" * 64,)

    asyncio.run(work())
    begun, ended = (json.loads(line) for line in lines(log)[1:])
    assert ended["event"] == "dub.ended"
    assert ended["by"] == begun["by"] == {"tenant": "studio", "token": "00112233aabbccdd"}
    assert (ended["faces"], ended["outputs"]) == (begun["faces"], ["e" * 64])
    assert ended["consents"] == begun["consents"] == sorted(["f" * 64, digest_of(CONSENT)])


def test_local_work_belongs_to_tenant(settings: GatewaySettings) -> None:
    """Commands with DUBSTAGE_TENANT, and a gateway that carries out an erasure that a command asked for."""
    own = settings.model_copy(update={"tenant": "acme", "data_dir": settings.data_dir / "tenants" / "acme"})
    with ActorStore(own) as actors:
        actors.consents.withdraw("0" * 64)
        (line,) = lines(actors.audit)
    assert json.loads(line)["by"] == {"tenant": "acme", "token": ""}


@pytest.mark.parametrize(
    ("problem", "event", "reason"),
    [(InvalidRequestError("no"), "dub.failed", "INVALID_REQUEST"), (asyncio.CancelledError(), "dub.cancelled", None)],
)
def test_failed_and_cancelled_work_recorded(log: AuditLog, problem: BaseException, event: str, reason: str | None) -> None:
    """Work that fails or is cancelled is recorded as such."""

    async def work() -> None:
        async with recorded(log, AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1")):
            raise problem

    with pytest.raises(type(problem)):
        asyncio.run(work())
    entry = json.loads(lines(log)[-1])
    assert (entry["event"], entry["details"].get("reason")) == (event, reason)


def test_hostile_texts_stay_in_their_line(log: AuditLog) -> None:
    hostile = 'x","event":"dub.begun\n{"head":\u2028\x00\ud800' + "y" * 1000
    log.record(AuditEvent(event=EventKind.BATCH_SUBMITTED, work="batches/a%_\n", details={"text": hostile}))
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1"), continues="batches/a%_\n")
    first, second = lines(log)
    assert first.isascii()
    assert "\n" not in first
    assert json.loads(first)["details"]["text"] == hostile[:200]
    assert json.loads(second)["event"] == "dub.begun"
    assert log.verify().sequence == 2


def test_settings_are_recorded_when_they_change(actors: ActorStore, log: AuditLog, settings: GatewaySettings) -> None:
    off = settings.model_copy(update={"watermark": False})
    strict = settings.model_copy(update={"require_consent": RequireConsent.SIGNED})
    for found in (settings, settings, off, off, strict):
        record_settings(actors.database, found)
    details = [json.loads(line)["details"] for line in lines(log)]
    assert [(found["watermark"], found["require_consent"]) for found in details] == [
        (True, "false"),
        (False, "false"),
        (True, "signed"),
    ]


def test_differing_gateway_keys_are_reported(actors: ActorStore, log: AuditLog, settings: GatewaySettings, tmp_path: Path) -> None:
    """Gateways of one database with different keys are reported."""
    other = settings.model_copy(update={"data_dir": tmp_path / "other"})
    with structlog.testing.capture_logs() as told:
        record_settings(actors.database, settings)
        record_settings(actors.database, settings)
    assert told == []
    with structlog.testing.capture_logs() as told:
        record_settings(actors.database, other)
    own, theirs = (installation_key(found.data_dir).id for found in (settings, other))
    (warning,) = told
    assert (warning["event"], warning["before"], warning["now"]) == ("another_signing_key", own, theirs)
    assert "DUBSTAGE_SIGNING_KEY_FILE" in warning["remedy"]
    assert [json.loads(line)["details"]["signing_key"] for line in lines(log)] == [own, theirs]
    # One file for both.
    key = {"signing_key_file": other.data_dir / "signing.pem"}
    with structlog.testing.capture_logs() as told:
        for found in (settings, other):
            record_settings(actors.database, found.model_copy(update=key))
    assert told == []
    assert recorded_signing_key(actors.database) == theirs


@pytest.mark.parametrize("line", ["no entry", "{}", "[]", "[" * 5000, '{"sequence":', "null"])
def test_damaged_entry_blocks_nothing(actors: ActorStore, log: AuditLog, settings: GatewaySettings, line: str) -> None:
    """A damaged entry is listed as damaged and blocks no other entry."""
    record_settings(actors.database, settings)
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1"))
    with actors.database.writing() as session:
        session.execute(update(AuditRow).values(line=line))
    record_settings(actors.database, settings)
    log.record(AuditEvent(event=EventKind.DUB_ENDED, work="dubs/1"), continues="dubs/1")
    first, second, third, fourth = log.newest(10)
    assert first.keys() == second.keys() == {"sequence", "damage"}
    assert (third["event"], fourth["event"]) == ("settings.changed", "dub.ended")
    assert [entry["sequence"] for entry in log.newest(10, event="dub")] == [1, 2, 4]
    with pytest.raises(ChainBrokenError, match="line 1"):
        log.verify()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"work": "dubs/other"}, "names other work"),
        ({"digest": "0" * 64}, "was changed in the database"),
        ({"sequence": 7}, "was changed in the database"),
    ],
)
def test_a_changed_column_of_a_row_is_told(log: AuditLog, actors: ActorStore, changed: dict[str, str | int], says: str) -> None:
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1"))
    with actors.database.writing() as session:
        session.execute(update(AuditRow).values(**changed))
    with pytest.raises(ChainBrokenError, match=says):
        log.verify()


@pytest.mark.parametrize("change", ["DELETE FROM audit_faces", "UPDATE audit_faces SET face = 'other'"])
def test_changed_rows_of_faces_are_told(log: AuditLog, actors: ActorStore, ann: str, change: str) -> None:
    with actors.database.writing() as session:
        session.execute(text(change))
    with pytest.raises(ChainBrokenError, match="names other faces"):
        log.verify()


def test_scene_is_of_every_actor(actors: ActorStore, log: AuditLog, ann: str, bob: str) -> None:
    """The entries of a scene name every actor and record, count for each, and outlive the erasure of one."""
    log.record(AuditEvent(event=EventKind.DUB_BEGUN, work="dubs/1", actor_ids=(bob, ann), consents=("f" * 64,)))
    log.record(AuditEvent(event=EventKind.DUB_ENDED, work="dubs/1"), continues="dubs/1")
    begun, ended = (json.loads(line) for line in lines(log)[-2:])
    assert ended["faces"] == begun["faces"]
    assert ended["consents"] == begun["consents"] == sorted(["f" * 64, digest_of(CONSENT), digest_of(OTHER)])
    assert log.counts(EventKind.DUB_ENDED, [ann, bob]) == {ann: 1, bob: 1}
    for actor_id in (ann, bob):
        assert sorted(log.newest(1, actor_id=actor_id, event="dub.ended")[0]["actor_ids"]) == [ann, bob]
    erase(actors, ann)
    assert sorted(log.newest(1, event="dub.ended")[0]["actor_ids"]) == ["", bob]
    assert log.counts(EventKind.DUB_ENDED, [ann, bob]) == {bob: 1}
    assert log.verify().sequence == 5


def test_a_withdrawal_leaves_an_entry(actors: ActorStore, log: AuditLog, ann: str) -> None:
    actors.consents.withdraw(digest_of(CONSENT))
    entry = json.loads(lines(log)[-1])
    assert (entry["event"], entry["consents"]) == ("consent.withdrawn", [digest_of(CONSENT)])


def test_newest_entries_by_actor_and_event(log: AuditLog, ann: str, tmp_path: Path) -> None:
    """The newest entries are chosen by actor and event."""
    for number in range(3):
        log.record(AuditEvent(event=EventKind.DUB_BEGUN, work=f"dubs/{number}", actor_ids=(ann,)))
        log.record(AuditEvent(event=EventKind.LIVE_BEGUN, work=f"live/{number}"))
    assert [entry["work"] for entry in log.newest(2, event="dub")] == ["dubs/1", "dubs/2"]
    assert [entry["work"] for entry in log.newest(9, event="live.begun")] == ["live/0", "live/1", "live/2"]
    assert [entry["actor_ids"] for entry in log.newest(9, actor_id="ann")] == [["ann"]] * 4
    assert [entry["work"] for entry in log.newest(2, actor_id="ann", event="dub")] == ["dubs/1", "dubs/2"]
    assert log.newest(9, actor_id="ben\0") == []
