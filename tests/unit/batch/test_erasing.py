from __future__ import annotations

from pathlib import Path

from gateway.batch.erasing import forget_actor
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

    assert forget_actor(store, "ann") == 2
    for name in ("monday", "tuesday"):
        assert set(store.thumbnails(name, actors)) == {"s2", "s3"}
        assert store.record(name, "s1").state is ShotState.DONE
    assert forget_actor(store, "ann") == 0


def test_without_any_batch_there_is_nothing_to_forget(tmp_path: Path) -> None:
    assert forget_actor(BatchStore(str(tmp_path / "none")), "ann") == 0
