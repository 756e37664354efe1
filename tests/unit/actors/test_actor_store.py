from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.actors.actor_id import check_actor_id
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore
from gateway.pipeline.journal import Journal
from gateway.settings import GatewaySettings
from services.common.errors import ActorNotReady, InvalidRequest
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from tests.unit.actors.installation import CONSENT, actors, blobs, database_url, geometry, learned, on_disk, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]


def test_an_actor_is_read_as_it_was_kept(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    actor = learned(blobs, "ann", geometry)
    actors.create("ann", method="ugc", enrolled=actor, footage_sha256="f" * 64, consent=CONSENT)
    found = actors.get("ann")
    assert found.consent == CONSENT
    assert found.enrolled.bank == actor.bank
    assert found.enrolled.lag_frames == -2
    assert set(found.artefacts) == {"enrolment", "style", "bank", "renderer"}
    assert actors.find("bob") is None


def test_actors_are_listed_in_order_behind_a_given_one(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    for name in ("cleo", "ann", "bob"):
        actors.create(name, method="ugc", enrolled=learned(blobs, name, geometry), footage_sha256="0" * 64, consent=None)
    assert [actor.actor_id for actor in actors.list()] == ["ann", "bob", "cleo"]
    assert [actor.actor_id for actor in actors.list(after="ann", limit=1)] == ["bob"]


def test_an_id_is_used_once(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    actor = learned(blobs, "ann", geometry)
    actors.create("ann", method="ugc", enrolled=actor, footage_sha256="0" * 64, consent=None)
    with pytest.raises(InvalidRequest, match="erase it first"):
        actors.check_free("ann")
    with pytest.raises(InvalidRequest, match="erase it first"):
        actors.create("ann", method="ugc", enrolled=actor, footage_sha256="0" * 64, consent=None)


@pytest.mark.parametrize("name", ["", "Ann", "a_b", "-ann", "ann-", "a" * 64, "../ann"])
def test_an_id_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_actor_id(name)


def test_erasing_removes_every_blob_and_job_of_the_person(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings, tmp_path: Path
) -> None:
    earlier = blobs.put_bytes(b"a style that was replaced")
    actors.create(
        "ann",
        method="ugc",
        enrolled=learned(blobs, "ann", geometry),
        footage_sha256="0" * 64,
        consent=None,
        more={"footage": blobs.put_bytes(b"footage of ann")},
        superseded=[earlier],
    )
    job = tmp_path / "data" / "jobs" / "1"
    Journal(job / "journal", blobs).record("window", {"box": np.zeros(4, np.uint8)})
    actors.jobs.begin(job, actor_id="ann")
    held = on_disk(settings)
    assert len(held) == 7
    receipt = actors.erase("ann")
    assert on_disk(settings) == set()
    assert not job.exists()
    assert set(receipt.erased_sha256) - set(receipt.document["erased"]["job file"]) == held
    assert receipt.kept_sha256 == ()
    for again in (lambda: actors.erase("ann"), lambda: actors.get("ann")):
        with pytest.raises(ActorNotReady, match="no actor 'ann'"):
            again()


def test_a_blob_that_another_actor_counts_is_kept_until_that_one_goes(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    ann = learned(blobs, "ann", geometry)
    bob = replace(learned(blobs, "bob", geometry), bank=ann.bank)
    actors.create("ann", method="ugc", enrolled=ann, footage_sha256="0" * 64, consent=None)
    actors.create("bob", method="ugc", enrolled=bob, footage_sha256="0" * 64, consent=None)
    receipt = actors.erase("ann")
    assert receipt.kept_sha256 == (ann.bank.sha256,)
    assert ann.bank.sha256 in on_disk(settings)
    assert ann.style.sha256 not in on_disk(settings)
    assert actors.get("bob").enrolled.bank == ann.bank
    assert ann.bank.sha256 in actors.erase("bob").erased_sha256
    assert ann.bank.sha256 not in on_disk(settings)


def test_what_a_job_made_goes_with_it_unless_an_actor_or_another_job_counts_it(
    actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path
) -> None:
    ann = learned(blobs, "ann", geometry)
    actors.create("ann", method="ugc", enrolled=ann, footage_sha256="0" * 64, consent=None)
    of_ann = ArtefactRef(ann.bank.uri, ann.bank.sha256, ann.bank.size_bytes)
    own, shared = blobs.put_bytes(b"own"), blobs.put_bytes(b"shared")
    first, second = JobLedger(actors), JobLedger(actors)
    first.begin(tmp_path / "first")
    second.begin(tmp_path / "second")
    for ref in (of_ann, own, shared):
        first.hold(tmp_path / "first", ref)
    second.hold(tmp_path / "second", shared)
    assert list(first.release(tmp_path / "first", [])) == [own]
    assert list(second.release(tmp_path / "second", [])) == [shared]
    assert list(second.release(tmp_path / "second", [])) == []


def test_work_with_an_erased_actor_does_not_begin(actors: ActorStore, tmp_path: Path) -> None:
    with pytest.raises(ActorNotReady):
        JobLedger(actors, "nobody").begin(tmp_path / "job")
