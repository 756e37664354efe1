"""Pictures and earlier videos of erased people leave the batches."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gateway.batch.changes import begin_anew
from gateway.batch.erasure import EARLIER, PICTURE, BatchPictures
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from tests.batches import open_store
from tests.unit.batch.rows import shot_of_row


def test_erased_persons_pictures_leave_batches(tmp_path: Path) -> None:
    """Pictures of an erased person leave every batch and others stay."""
    store = open_store(tmp_path)
    actors = {"s1": "ann", "s2": "bob", "s3": None, "s4": "ann"}
    for name in ("monday", "tuesday"):
        shots = [
            shot_of_row(id=shot, footage="/plate.mp4", output=f"/out/{name}-{shot}.mp4", actor=actor)
            for shot, actor in actors.items()
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


def test_earlier_videos_are_kept_by_a_retry_and_go_with_the_person(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    shots = [
        shot_of_row(id=name, footage="/plate.mp4", output=str(tmp_path / f"{name}.mp4"), actor=name) for name in ("ann", "bob")
    ]
    store.create(manifest_of("night", shots), "gateway")
    for shot in shots:
        Path(shot.output).write_text(shot.id)
        digest = hashlib.sha256(shot.id.encode()).hexdigest()
        store.put("night", ShotRecord(id=shot.id, state=ShotState.DONE, output=shot.output, output_sha256=digest))
    begin_anew(store, "night", ["ann", "bob"])
    pictures = BatchPictures(store)
    assert pictures.left("ann") == (1, ["earlier video of shot ann of batch night"])
    assert pictures.forget("ann") == {PICTURE: set(), EARLIER: {hashlib.sha256(b"ann").hexdigest()}}
    assert pictures.left("ann") == (1, [])
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == [".earlier-bob.mp4", "ann.mp4", "bob.mp4"], (
        "the shots' videos stay"
    )
    assert store.earlier("night", ["ann", "bob"]).keys() == {"bob"}


def test_pictures_of_scenes_are_of_all_actors(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    lines = [{"start": 0, "speech": "/a.wav", "actor": actor} for actor in ("ann", "bob")]
    shot = shot_of_row(id="s1", footage="/plate.mp4", output="/out.mp4", lines=lines)
    store.create(manifest_of("night", [shot]), "local")
    store.put_thumbnail("night", "s1", b"jpeg")
    assert BatchPictures(store).left("bob") == (1, ["picture of shot s1 of batch night"])


def test_without_any_batch_there_is_nothing_to_forget(tmp_path: Path) -> None:
    pictures = BatchPictures(open_store(tmp_path / "none"))
    assert pictures.forget("ann") == {PICTURE: set()}
    assert pictures.left("ann") == (0, [])
