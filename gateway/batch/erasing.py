"""An erased person leaves the pictures of batches too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.batch.store import BatchStore, open_batches
from gateway.settings import GatewaySettings

PICTURE: Final = "batch picture"
"""Kind of the pictures of shots in receipts."""


class BatchPictures:
    """Pictures of people in the store of batches. All methods block.

    Rows and records stay: they hold the actor's id, paths and figures, and nothing of the person's footage. The films belong to
    whoever ordered the shots.

    Each method raises StorageRefused where the store refuses, BackendUnavailable where the store does not answer, and
    ArtefactCorrupt if a file of a batch is damaged.

    Args:
        store: the store of batches.
    """

    place = "pictures of batches"

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def forget(self, actor_id: str) -> Mapping[str, set[str]]:
        """Remove the pictures of all shots of an actor, and return their SHA-256, hexadecimal."""
        found: set[str] = set()
        for name, shots in self._shots(actor_id):
            found |= {hashlib.sha256(jpeg).hexdigest() for jpeg in self._store.thumbnails(name, shots).values()}
            self._store.remove_thumbnails(name, shots)
        return {PICTURE: found}

    def left(self, actor_id: str) -> tuple[int, Sequence[str]]:
        """Return the number of the actor's shots, and the pictures of them that are still there."""
        number, left = 0, []
        for name, shots in self._shots(actor_id):
            number += len(shots)
            left += [f"picture of shot {shot} of batch {name}" for shot in self._store.thumbnails(name, shots)]
        return number, left

    def _shots(self, actor_id: str) -> list[tuple[str, list[str]]]:
        found = [(name, [shot.id for shot in self._store.manifest(name) if shot.actor == actor_id]) for name in self._store.names()]
        return [(name, shots) for name, shots in found if shots]


def batch_pictures(settings: GatewaySettings) -> BatchPictures:
    """Return the pictures in the store of batches that the settings name."""
    return BatchPictures(open_batches(settings))
