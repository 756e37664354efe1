"""The simulation of a large installation, at a tiny size: rows and records are real, and every step has a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.actors.store import ActorStore
from gateway.batch.types import ShotState, manifest_of
from gateway.consent.record import digest_of
from gateway.settings import GatewaySettings
from gateway.tenants.register import stored_bytes
from research.bench import scale
from services.common.server.settings import load_settings
from tests.batches import open_store


def test_rows_are_those_of_enrolments(tmp_path: Path) -> None:
    """The store reads, withdraws and erases the people of the simulation, and its log verifies."""
    settings = load_settings(GatewaySettings, data_dir=tmp_path, artefacts_url=str(tmp_path / "artefacts"))
    with ActorStore(settings) as store:
        scale.fill_actors(store, 0, 3)
        scale.fill_actors(store, 3, 5)
        actors = store.list()
        assert [actor.actor_id for actor in actors] == [f"actor-{number:07d}" for number in range(5)]
        assert {(actor.damage, actor.consent_problem, actor.num_frames, len(actor.artefacts)) for actor in actors} == {
            ("", "", 250, 5)
        }
        assert stored_bytes(store.database) == 5 * 5 * 4_000_000
        assert store.audit.verify().sequence == 5
        assert [entry["actor_ids"] for entry in store.audit.newest(2)] == [["actor-0000003"], ["actor-0000004"]]
        assert store.consents.withdraw(digest_of(scale.consent_of(3))).actor_ids == ("actor-0000003",)
        assert [actor.actor_id for actor in store.list() if actor.consent_problem] == ["actor-0000003"]


def test_records_are_those_of_workers(tmp_path: Path) -> None:
    shots, store = scale.rows_of_batch(6), open_store(tmp_path)
    store.create(manifest_of("night", shots), "gateway")
    scale.fill_records(store, "night", shots, 2)
    assert [record.state for record in store.records("night")] == [ShotState.WAITING] * 2 + [ShotState.DONE] * 4


def test_every_step_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command measures all parts. Each step of a part has a time for each size, and a ratio to the first size."""
    monkeypatch.setattr(scale, "PAGE", 4)
    found = tmp_path / "found.json"
    sizes = ["--actors", "12", "24", "--shots", "16", "32", "--workers", "2"]
    assert scale.main([*sizes, "--json", str(found)]) == 0
    steps = json.loads(found.read_text())
    assert {step["part"] for step in steps} == {"actors", "shots"}
    by_name: dict[tuple[str, str], list[int]] = {}
    for step in steps:
        assert step["ms"] > 0
        by_name.setdefault((step["part"], step["step"]), []).append(step["size"])
    assert {tuple(sizes) for (part, _), sizes in by_name.items() if part == "actors"} == {(12, 24)}
    assert {tuple(sizes) for (part, _), sizes in by_name.items() if part == "shots"} == {(16, 32)}
