from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from gateway.actors.ledger import JobLedger
from gateway.actors.store import ActorStore, check_actor_id
from gateway.consent import Consent
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.journal import Journal
from gateway.settings import GatewaySettings
from services.common.actor_geometry import ANCHORS, ActorGeometry
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ActorNotReady, InvalidRequest
from services.common.landmarks import JAW, NUM_MOUTH_AREA
from services.common.settings import load_settings

CONSENT = Consent.model_validate(
    {"subject": "Ann", "granted_by": "Ann", "scope": "one film", "date": "2026-02-01", "reference": "folder 3"}
)


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path / "data", artefacts_url=str(tmp_path / "artefacts"))


@pytest.fixture
def blobs(settings: GatewaySettings) -> ArtefactStore:
    return ArtefactStore(settings.artefacts_url)


@pytest.fixture
def store(settings: GatewaySettings) -> Iterator[ActorStore]:
    with ActorStore(settings) as opened:
        yield opened


def message(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def learned(blobs: ArtefactStore, name: str, geometry: ActorGeometry) -> EnrolledActor:
    """What an enrolment leaves: three blobs of bytes that carry the name."""
    style, bank, renderer = (message(blobs.put_bytes(f"{kind} of {name}".encode())) for kind in ("style", "bank", "renderer"))
    pose = np.array([0.1, 0.0, 0.0, 320.0, 240.0, 1.5])
    return EnrolledActor(style, bank, renderer, geometry, 100, pose, lag_frames=-2, lag_confidence=0.5)


@pytest.fixture(scope="module")
def geometry() -> ActorGeometry:
    rng = np.random.default_rng(5)
    rows = {"mean_mouth": NUM_MOUTH_AREA, "closed_mouth": NUM_MOUTH_AREA, "jaw_envelope": len(JAW), "anchors": len(ANCHORS)}
    return ActorGeometry(**{name: rng.normal(size=(count, 3)).astype(np.float32) for name, count in rows.items()})


def on_disk(settings: GatewaySettings) -> set[str]:
    return {path.name for path in Path(settings.artefacts_url).rglob("*") if path.is_file()}


def test_an_actor_is_read_as_it_was_kept(store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    actor = learned(blobs, "ann", geometry)
    store.create("ann", method="ugc", enrolled=actor, footage_sha256="f" * 64, consent=CONSENT)
    found = store.get("ann")
    assert found.consent == CONSENT
    assert found.enrolled.bank == actor.bank
    assert found.enrolled.lag_frames == -2
    assert set(found.artefacts) == {"enrolment", "style", "bank", "renderer"}
    assert store.find("bob") is None


def test_actors_are_listed_in_order_behind_a_given_one(store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    for name in ("cleo", "ann", "bob"):
        store.create(name, method="ugc", enrolled=learned(blobs, name, geometry), footage_sha256="0" * 64, consent=None)
    assert [actor.actor_id for actor in store.list()] == ["ann", "bob", "cleo"]
    assert [actor.actor_id for actor in store.list(after="ann", limit=1)] == ["bob"]


def test_an_id_is_used_once(store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry) -> None:
    actor = learned(blobs, "ann", geometry)
    store.create("ann", method="ugc", enrolled=actor, footage_sha256="0" * 64, consent=None)
    with pytest.raises(InvalidRequest, match="erase it first"):
        store.check_free("ann")
    with pytest.raises(InvalidRequest, match="erase it first"):
        store.create("ann", method="ugc", enrolled=actor, footage_sha256="0" * 64, consent=None)


@pytest.mark.parametrize("name", ["", "Ann", "a_b", "-ann", "ann-", "a" * 64, "../ann"])
def test_an_id_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_actor_id(name)


def test_erasing_removes_every_blob_and_job_of_the_person(
    store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings, tmp_path: Path
) -> None:
    earlier = blobs.put_bytes(b"a style that was replaced")
    store.create(
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
    store.jobs.begin(job, actor_id="ann")
    held = on_disk(settings)
    assert len(held) == 7
    receipt = store.erase("ann")
    assert on_disk(settings) == set()
    assert not job.exists()
    assert set(receipt.erased_sha256) == held
    assert receipt.kept_sha256 == ()
    for again in (lambda: store.erase("ann"), lambda: store.get("ann")):
        with pytest.raises(ActorNotReady, match="no actor 'ann'"):
            again()


def test_a_receipt_is_signed_over_what_it_says(
    store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    store.create("ann", method="ugc", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=None)
    receipt = store.erase("ann")
    body = {
        "actor_id": receipt.actor_id,
        "erased_sha256": list(receipt.erased_sha256),
        "kept_sha256": list(receipt.kept_sha256),
        "erased_at": receipt.erased_at,
    }
    key_file = settings.data_dir / "receipt.key"
    expected = hmac.new(key_file.read_bytes(), json.dumps(body, sort_keys=True).encode(), hashlib.sha256).hexdigest()
    assert receipt.signature == expected
    assert key_file.stat().st_mode & 0o077 == 0


def test_a_blob_that_another_actor_counts_is_kept_until_that_one_goes(
    store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, settings: GatewaySettings
) -> None:
    ann = learned(blobs, "ann", geometry)
    bob = replace(learned(blobs, "bob", geometry), bank=ann.bank)
    store.create("ann", method="ugc", enrolled=ann, footage_sha256="0" * 64, consent=None)
    store.create("bob", method="ugc", enrolled=bob, footage_sha256="0" * 64, consent=None)
    receipt = store.erase("ann")
    assert receipt.kept_sha256 == (ann.bank.sha256,)
    assert ann.bank.sha256 in on_disk(settings)
    assert ann.style.sha256 not in on_disk(settings)
    assert store.get("bob").enrolled.bank == ann.bank
    assert ann.bank.sha256 in store.erase("bob").erased_sha256
    assert ann.bank.sha256 not in on_disk(settings)


def test_what_a_job_made_goes_with_it_unless_an_actor_or_another_job_counts_it(
    store: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, tmp_path: Path
) -> None:
    ann = learned(blobs, "ann", geometry)
    store.create("ann", method="ugc", enrolled=ann, footage_sha256="0" * 64, consent=None)
    of_ann = ArtefactRef(ann.bank.uri, ann.bank.sha256, ann.bank.size_bytes)
    own, shared = blobs.put_bytes(b"own"), blobs.put_bytes(b"shared")
    first, second = JobLedger(store), JobLedger(store)
    first.begin(tmp_path / "first")
    second.begin(tmp_path / "second")
    for ref in (of_ann, own, shared):
        first.hold(tmp_path / "first", ref)
    second.hold(tmp_path / "second", shared)
    assert list(first.release(tmp_path / "first", [])) == [own]
    assert list(second.release(tmp_path / "second", [])) == [shared]
    assert list(second.release(tmp_path / "second", [])) == []


def test_work_with_an_erased_actor_does_not_begin(store: ActorStore, tmp_path: Path) -> None:
    with pytest.raises(ActorNotReady):
        JobLedger(store, "nobody").begin(tmp_path / "job")
