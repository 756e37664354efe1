from __future__ import annotations

import hashlib
from pathlib import Path

from gateway.batch.erasing import PICTURE, BatchPictures
from gateway.batch.manifest import manifest_of
from gateway.batch.store import BatchStore
from gateway.batch.types import Shot, ShotRecord, ShotState


def test_pictures_of_an_erased_person_leave_every_batch_and_others_stay(tmp_path: Path) -> None:
    store = BatchStore(str(tmp_path))
    actors = {"s1": "ann", "s2": "bob", "s3": None, "s4": "ann"}
    for name in ("monday", "tuesday"):
        shots = [
            Shot(id=shot, footage="/plate.mp4", output=f"/out/{name}-{shot}.mp4", actor=actor) for shot, actor in actors.items()
        ]
        store.create(manifest_of(name, shots), "local")
        for shot in ("s1", "s2", "s3"):
            store.put(name, ShotRecord(id=shot, state=ShotState.DONE, has_thumbnail=True))
            store.put_thumbnail(name, shot, b"jpeg of " + shot.encode())

    pictures = BatchPictures(store)
    number, left = pictures.left("ann")
    assert (number, len(left)) == (4, 2)
    assert pictures.forget("ann") == {PICTURE: {hashlib.sha256(b"jpeg of s1").hexdigest()}}
    assert pictures.left("ann") == (4, [])
    for name in ("monday", "tuesday"):
        assert set(store.thumbnails(name, actors)) == {"s2", "s3"}
        assert store.record(name, "s1").state is ShotState.DONE
    assert pictures.forget("ann") == {PICTURE: set()}


def test_without_any_batch_there_is_nothing_to_forget(tmp_path: Path) -> None:
    pictures = BatchPictures(BatchStore(str(tmp_path / "none")))
    assert pictures.forget("ann") == {PICTURE: set()}
    assert pictures.left("ann") == (0, [])
