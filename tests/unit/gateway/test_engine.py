"""Requests of the engine: what the actors of a dub decide about it."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gateway.actors.installation import Installation
from gateway.actors.store import ActorStore
from gateway.dub.request.spec import LocalFiles
from gateway.dub.request.spec_text import spec_from
from gateway.engine import Engine
from gateway.media.sequences import SequenceDub, SequenceSettings
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.refusals import raised
from tests.unit.actors.installation import actors, blobs, database_url, geometry, learned, settings

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]


@pytest.fixture
def engine(actors: ActorStore, blobs: ArtefactStore, settings: GatewaySettings, geometry: ActorGeometry) -> Engine:
    """The engine of an installation with one actor of each of two methods."""
    for name, method in (("ann", "dubstage"), ("ben", "portrait")):
        actors.create(name, method=method, enrolled=learned(blobs, name, geometry), footage_sha256="0" * 64, consent=None)
    return Engine.of(Installation(settings, actors, blobs))


@pytest.mark.parametrize("given", [{}, {"method": "portrait"}])
def test_scene_keeps_its_frames(engine: Engine, carphone: Path, tmp_path: Path, given: dict[str, str]) -> None:
    """A scene takes no method with its own timeline, whether the options or the first actor of its lines decide the method."""

    def spec(actor: str) -> dict[str, Any]:
        lines = [{"start": 0.5, "speech": "word.wav", "actor": actor}]
        return {"footage": str(carphone), "output": str(tmp_path / "out.mp4"), "lines": lines}

    assert engine.request(spec_from(spec("ann")), LocalFiles()).method == "dubstage"
    with raised(InvalidRequestError, match="a dub with lines takes no method portrait", field="method"):
        engine.request(spec_from({**spec("ben"), **given}), LocalFiles())


def test_sequence_keeps_its_frames(engine: Engine, astronaut: Path, tmp_path: Path) -> None:
    """An image sequence takes no actor of a method with its own timeline."""
    for number in (1, 2):
        shutil.copy(astronaut, tmp_path / f"plate.{number:04d}.png")
    footage, output = tmp_path / "plate.%04d.png", tmp_path / "dub.%04d.png"
    frames = SequenceDub(footage, output, SequenceSettings(rate=Fraction(25)), tmp_path)

    def spec(actor: str) -> dict[str, Any]:
        return {"footage": str(footage), "output": str(output), "speech": "word.wav", "actor": actor}

    assert engine.request(spec_from(spec("ann")), LocalFiles(), frames=frames).method == "dubstage"
    with raised(InvalidRequestError, match="videos of method portrait are as long as the speech", field="method"):
        engine.request(spec_from(spec("ben")), LocalFiles(), frames=frames)
