"""Removal of the pictures, earlier videos and consent records of an erased person from the store of batches. The videos of shots
stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.actors.sweep import OtherStore
from gateway.batch.store import BatchStore
from gateway.database.session import Database
from gateway.operations.erasure import SceneRecords

PICTURE: Final = "batch picture"
"""Kind of the pictures of shots in receipts."""
EARLIER: Final = "earlier video"
"""Kind of the videos that retries have replaced in receipts."""


def other_stores(database: Database) -> list[OtherStore]:
    """Return the stores beside database rows, artefacts and jobs that an erasure removes a person from."""
    return [BatchPictures(BatchStore(database)), SceneRecords(database)]


class BatchPictures:
    """Pictures, earlier videos and consent records of people in the store of batches. All methods block.

    Rows stay without the consent records of their dubs, which may hold faces: no such dub can begin again. Records of shots stay:
    they hold paths and figures. The videos belong to the people who ordered the shots.

    Each method raises StorageRefusedError or BackendUnavailableError if the database cannot be used, and StorageRefusedError if an
    earlier video cannot be removed.

    Args:
        store: the store of batches.
    """

    place = "pictures of batches"

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def forget(self, actor_id: str) -> Mapping[str, set[str]]:
        """Remove pictures, earlier videos and consent records of all shots of an actor. Return the SHA-256 of pictures and
        videos by kind, hexadecimal.
        """
        pictures: set[str] = set()
        videos: set[str] = set()
        for name, shots in self._store.shots_of_actor(actor_id).items():
            videos |= {video.sha256 for video in self._store.earlier(name, shots).values()}
            self._store.remove_earlier(name, shots)
            pictures |= {hashlib.sha256(jpeg).hexdigest() for jpeg in self._store.thumbnails(name, shots).values()}
            self._store.remove_thumbnails(name, shots)
            self._store.remove_records(name, shots)
        return {PICTURE: pictures, **({EARLIER: videos} if videos else {})}

    def left(self, actor_id: str) -> tuple[int, Sequence[str]]:
        """Return the number of the actor's shots, and their pictures, earlier videos and consent records that are still there."""
        number, left = 0, []
        for name, shots in self._store.shots_of_actor(actor_id).items():
            number += len(shots)
            left += [f"picture of shot {shot} of batch {name}" for shot in self._store.thumbnails(name, shots)]
            left += [f"earlier video of shot {shot} of batch {name}" for shot in self._store.earlier(name, shots)]
            left += [f"consent record of shot {shot} of batch {name}" for shot in self._store.records_given(name, shots)]
        return number, left
