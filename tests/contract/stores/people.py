"""Actors of an installation."""

from typing import Any

from gateway.actors.store import ActorStore
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import CONSENT, learned


def keep(actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, name: str, **more: Any) -> None:
    """Create an actor with a consent and with artefacts of their own. `more` are further fields, or others."""
    given = {"method": "dubstage", "footage_sha256": "0" * 64, "consent": CONSENT, **more}
    actors.create(name, enrolled=learned(blobs, name, geometry), **given)
