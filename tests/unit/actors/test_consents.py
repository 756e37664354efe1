"""The rules of consent of an installation: what it asks for, what it trusts, and what was withdrawn."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gateway.actors.consents import Consents
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.actors.watch import while_allowed
from gateway.consent.keys import signed
from gateway.consent.record import ConsentUse, digest_of
from gateway.settings import GatewaySettings
from services.common.errors import (
    ConsentMissingError,
    ConsentRefusedError,
    ConsentUnsignedError,
    ConsentWithdrawnError,
    ConsentWithoutSubjectError,
    InvalidRequestError,
    StorageRefusedError,
)
from services.common.face.actor_geometry import ActorGeometry
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore
from tests.erasing import erase
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, settings
from tests.unit.consent.records import STRANGER, STUDIO, allowed, faults, in_days, of_footage, public_pem, record, trusted

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]

NIGHT = ConsentUse("night", "de")
OWN_FAULTS = {
    "expired": {"valid_until": in_days(-2)},
    "too early": {"valid_from": in_days(2)},
    "other project": {"projects": ["day"]},
    "other language": {"languages": ["fr"]},
    "other actor": {"actor": "eve"},
    "withdrawn": {"reference": "withdrawn"},
}
"""Reasons that let an actor's own record refuse work for the project `night` in German with the actor `ann`."""


def rules(actors: ActorStore, settings: GatewaySettings, **more: object) -> Consents:
    return Consents(
        actors.database, settings.model_copy(update=load_settings(GatewaySettings, **more).model_dump(include=set(more)))
    )


@pytest.mark.parametrize("fault", sorted(faults()))
def test_each_fault_is_refused_with_its_own_reason(
    fault: str, actors: ActorStore, settings: GatewaySettings, tmp_path: Path
) -> None:
    strict = rules(actors, settings, require_consent="signed", consent_keys=trusted(tmp_path / "keys"))
    strict.check(allowed(), NIGHT, "ann")
    found = faults()[fault]
    if found.withdrawn and found.record is not None:
        strict.withdraw(digest_of(found.record))
    with pytest.raises(ConsentRefusedError, match=found.says) as caught:
        strict.check(found.record, NIGHT, "ann")
    assert (caught.value.reason, caught.value.subject) == (found.reason, "ann")


def test_plain_record_without_requirement(actors: ActorStore, settings: GatewaySettings) -> None:
    """Without a requirement, a record of five fields or none is enough."""
    lax = rules(actors, settings)
    lax.check(None, NIGHT, "ann")
    lax.check(record(), NIGHT, "ann")
    # But what a record says counts in every installation.
    for name in ("stranger", "altered", "too early", "expired", "other project", "other language", "other actor"):
        found = faults()[name]
        with pytest.raises(ConsentRefusedError):
            lax.check(found.record, NIGHT, "ann")


@pytest.mark.parametrize("required", ["false", "true", "signed"])
@pytest.mark.parametrize("fault", sorted(OWN_FAULTS))
def test_request_record_narrows_own(
    fault: str, required: str, actors: ActorStore, settings: GatewaySettings, tmp_path: Path
) -> None:
    """A record of a request narrows the own record and never replaces it."""
    found = rules(actors, settings, require_consent=required, consent_keys=trusted(tmp_path / "keys"))
    valid, faulty = allowed(), signed(record(**of_footage(), **OWN_FAULTS[fault]), STUDIO)
    if fault == "withdrawn":
        found.withdraw(digest_of(faulty))
    for own, given in ((None, valid), (valid, None), (valid, valid)):
        found.check_enrolled(own, given, NIGHT, "ann", actor_id="ann")
    reason = {"other project": "OUT_OF_SCOPE", "other language": "OUT_OF_SCOPE", "other actor": "OTHER_SUBJECT"}
    for own, given in ((faulty, valid), (valid, faulty), (faulty, None), (None, faulty)):
        with pytest.raises(ConsentRefusedError) as caught:
            found.check_enrolled(own, given, NIGHT, "ann", actor_id="ann")
        wanted = {"too early": "NOT_YET_VALID", **reason}.get(fault, fault.upper())
        assert caught.value.reason == f"CONSENT_{wanted}"
        assert ("a consent record of its own" in caught.value.message) == (own is faulty and given is valid)


def test_request_record_meets_requirement(actors: ActorStore, settings: GatewaySettings, tmp_path: Path) -> None:
    """An actor who was enrolled before signatures and subjects were required works on with records that have both."""
    strict = rules(actors, settings, require_consent="signed", consent_keys=trusted(tmp_path / "keys"))
    strict.check_enrolled(record(), allowed(), NIGHT, "ann", actor_id="ann")
    strict.check_enrolled(signed(record(), STUDIO), None, NIGHT, "ann", actor_id="ann")
    for own, given, error in (
        (record(), None, ConsentUnsignedError),
        (allowed(), record(), ConsentUnsignedError),
        (allowed(), signed(record(), STUDIO), ConsentWithoutSubjectError),
        (None, signed(record(), STUDIO), ConsentWithoutSubjectError),
        (None, None, ConsentMissingError),
    ):
        with pytest.raises(error):
            strict.check_enrolled(own, given, NIGHT, "ann", actor_id="ann")
    rules(actors, settings).check_enrolled(record(), record(), NIGHT, "ann", actor_id="ann")


def test_keys_change_without_a_restart(actors: ActorStore, settings: GatewaySettings, tmp_path: Path) -> None:
    place = trusted(tmp_path / "keys")
    strict = rules(actors, settings, require_consent="signed", consent_keys=place)
    stranger = faults()["stranger"].record
    with pytest.raises(ConsentRefusedError):
        strict.check(stranger, NIGHT, "ann")
    (place / "partner.pem").write_bytes(public_pem(STRANGER))
    strict.check(stranger, NIGHT, "ann")
    (place / "studio.pem").unlink()
    with pytest.raises(ConsentRefusedError):
        strict.check(allowed(), NIGHT, "ann")


def test_missing_keys_not_callers_mistake(actors: ActorStore, settings: GatewaySettings, tmp_path: Path) -> None:
    """Keys that vanish while a gateway serves are not the caller's fault."""
    strict = rules(actors, settings, require_consent="signed", consent_keys=tmp_path / "absent")
    with pytest.raises(StorageRefusedError, match=r"DUBSTAGE_CONSENT_KEYS: .*absent cannot be read"):
        strict.check(allowed(), NIGHT, "ann")


def test_settings_that_can_trust_nobody_are_refused(actors: ActorStore, settings: GatewaySettings, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="needs trusted keys"):
        rules(actors, settings, require_consent="signed").check_settings()
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        rules(actors, settings, consent_keys=tmp_path / "absent").check_settings()
    rules(actors, settings, require_consent="signed", consent_keys=trusted(tmp_path / "keys")).check_settings()
    rules(actors, settings, require_consent=True).check_settings()


def test_withdrawal_names_actors_and_time(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    """A withdrawal names the actors and keeps its time."""
    for name, consent in (("ann", record()), ("twin", record()), ("bob", record(subject="Bob")), ("eve", None)):
        actors.create(name, method="dubstage", enrolled=learned(blobs, name, geometry), footage_sha256="0" * 64, consent=consent)
    assert {actor.actor_id: actor.consent_problem for actor in actors.list()} == dict.fromkeys(("ann", "bob", "eve", "twin"), "")
    done = actors.consents.withdraw_of("ann", actors.show("ann").consent)
    assert (done.record_sha256, done.actor_ids) == (digest_of(record()), ("ann", "twin"))
    assert actors.consents.withdraw(done.record_sha256) == done
    assert "was withdrawn at" in actors.show("ann").consent_problem
    assert {actor.actor_id for actor in actors.list() if actor.consent_problem} == {"ann", "twin"}
    with pytest.raises(ConsentMissingError, match="no consent record that could be withdrawn"):
        actors.consents.withdraw_of("eve", None)
    # The withdrawal outlives the person and the process.
    erase(actors, "ann")
    with ActorStore(settings) as again, pytest.raises(ConsentWithdrawnError, match=re.escape(done.withdrawn_at)):
        again.consents.check(record(), NIGHT, "ann")


def test_withdrawn_record_stops_enrolment(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    """A person whose record was withdrawn meanwhile is not enrolled."""
    actors.consents.withdraw(digest_of(CONSENT))
    with pytest.raises(ConsentWithdrawnError):
        actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=CONSENT)
    assert actors.find("ann") is None


def test_withdrawal_during_sealing(actors: ActorStore) -> None:
    """A video gets no name when the consent was withdrawn while it was sealed."""
    ledger = JobLedger(actors, consents=[CONSENT])
    ledger.confirm()
    actors.consents.withdraw(digest_of(CONSENT))
    with pytest.raises(ConsentWithdrawnError):
        ledger.confirm()


def test_withdrawn_person_needs_no_record(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    """A person who withdrew consent is not dubbed with another record either."""
    own = record(valid_until=in_days(1))
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=own)
    other = record(reference="folder 9")
    actors.consents.check_lasting([other], actor_id="ann")
    actors.consents.withdraw(digest_of(own))
    actors.consents.check_lasting([other])
    with pytest.raises(ConsentWithdrawnError):
        actors.consents.check_lasting([other], actor_id="ann")


@pytest.mark.parametrize("how", ["withdrawn", "expired"])
async def test_consent_end_cancels_work(actors: ActorStore, how: str) -> None:
    """Work that runs is cancelled when its consent ends."""
    found = record(valid_until=in_days(-1) if how == "expired" else in_days(1))
    begun = asyncio.Event()
    ended: list[str] = []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    watched = asyncio.create_task(while_allowed(lambda: actors.consents.check_lasting([found]), work(), every_s=0.01))
    await begun.wait()
    actors.consents.withdraw(digest_of(found) if how == "withdrawn" else "0" * 64)
    with pytest.raises(ConsentRefusedError) as caught:
        async with asyncio.timeout(60):
            await watched
    assert caught.value.reason == f"CONSENT_{how.upper()}"
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    ("value", "kept"), [("true", "true"), ("1", "true"), (True, "true"), ("0", "false"), (" Signed ", "signed")]
)
def test_the_requirement_is_a_truth_value_or_signed(value: object, kept: str) -> None:
    assert load_settings(GatewaySettings, require_consent=value).require_consent.value == kept


def test_another_requirement_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"REQUIRE_CONSENT.*true, false or signed"):
        load_settings(GatewaySettings, require_consent="maybe")


def test_the_studio_is_trusted_by_its_own_file(actors: ActorStore, settings: GatewaySettings, tmp_path: Path) -> None:
    (tmp_path / "studio.pem").write_bytes(public_pem(STUDIO))
    rules(actors, settings, require_consent="signed", consent_keys=tmp_path / "studio.pem").check(allowed(), NIGHT, "ann")
