"""An empty installation below a test's folder, and what enrolments leave there. Test modules import the fixtures that they use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.actors.store import ActorStore
from gateway.consent.record import Consent
from gateway.dub.learn.enrol import EnrolledActor
from gateway.settings import GatewaySettings
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA
from services.common.server.settings import load_settings
from services.common.store.artefacts import OWNER, ArtefactRef, ArtefactStore

CONSENT = Consent.model_validate(
    {"subject": "Ann", "granted_by": "Ann", "scope": "one video", "date": "2026-02-01", "reference": "folder 3"}
)


@pytest.fixture
def database_url() -> str:
    """URL of the database; empty: SQLite. Test modules may replace this fixture."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    return load_settings(
        GatewaySettings,
        data_dir=tmp_path / "data",
        artefacts_url=str(tmp_path / "artefacts"),
        database_url=database_url,
        # A thread that took a second connection while it holds one would wait for itself.
        database_connections=1,
    )


@pytest.fixture
def blobs(settings: GatewaySettings) -> ArtefactStore:
    return ArtefactStore(settings.artefacts_url)


@pytest.fixture
def actors(settings: GatewaySettings) -> Iterator[ActorStore]:
    with ActorStore(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def geometry() -> ActorGeometry:
    rng = np.random.default_rng(5)
    rows = {"mean_mouth": NUM_MOUTH_AREA, "closed_mouth": NUM_MOUTH_AREA, "jaw_envelope": len(JAW), "anchors": len(ANCHORS)}
    return ActorGeometry(**{name: rng.normal(size=(count, 3)).astype(np.float32) for name, count in rows.items()})


def message(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def learned(blobs: ArtefactStore, name: str, geometry: ActorGeometry) -> EnrolledActor:
    """Put the blobs that an enrolment leaves: three blobs of bytes that carry the name."""
    style, bank, renderer = (message(blobs.put_bytes(f"{kind} of {name}".encode())) for kind in ("style", "bank", "renderer"))
    pose = np.array([0.1, 0.0, 0.0, 320.0, 240.0, 1.5])
    return EnrolledActor(style, bank, renderer, geometry, 100, pose, lag_frames=-2, lag_confidence=0.5)


def on_disk(settings: GatewaySettings) -> set[str]:
    """Names of all files of the artefact store but the one that names the store's database."""
    return {path.name for path in Path(settings.artefacts_url).rglob("*") if path.is_file()} - {OWNER}
