"""Removal of the pictures and earlier videos of an erased person from the store of batches. The videos of shots stay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.batch.store import BatchStore

PICTURE: Final = "batch picture"
"""Kind of the pictures of shots in receipts."""
EARLIER: Final = "earlier video"
"""Kind of the videos that retries have replaced in receipts."""


class BatchPictures:
    """Pictures and earlier videos of people in the store of batches. All methods block.

    Rows and records stay: they hold the actor's id, paths and figures, and nothing of the person's footage. The videos belong to
    whoever ordered the shots.

    Each method raises StorageRefusedError or BackendUnavailableError if the database cannot be used, and StorageRefusedError if an
    earlier video cannot be removed.

    Args:
        store: the store of batches.
    """

    place = "pictures of batches"

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def forget(self, actor_id: str) -> Mapping[str, set[str]]:
        """Remove pictures and earlier videos of all shots of an actor, and return their SHA-256 by kind, hexadecimal."""
        pictures: set[str] = set()
        videos: set[str] = set()
        for name, shots in self._store.shots_of_actor(actor_id).items():
            videos |= {video.sha256 for video in self._store.earlier(name, shots).values()}
            self._store.remove_earlier(name, shots)
            pictures |= {hashlib.sha256(jpeg).hexdigest() for jpeg in self._store.thumbnails(name, shots).values()}
            self._store.remove_thumbnails(name, shots)
        return {PICTURE: pictures, **({EARLIER: videos} if videos else {})}

    def left(self, actor_id: str) -> tuple[int, Sequence[str]]:
        """Return the number of the actor's shots, and their pictures and earlier videos that are still there."""
        number, left = 0, []
        for name, shots in self._store.shots_of_actor(actor_id).items():
            number += len(shots)
            left += [f"picture of shot {shot} of batch {name}" for shot in self._store.thumbnails(name, shots)]
            left += [f"earlier video of shot {shot} of batch {name}" for shot in self._store.earlier(name, shots)]
        return number, left
