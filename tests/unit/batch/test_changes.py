"""Old batches whose shots have all ended go, by age and by size; batches with work left stay."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.audit.entries import EventKind
from gateway.batch.changes import EARLIER, PICTURE, BatchPictures, batch_event, begin_anew, check_options, expire_batches
from gateway.batch.leases import batch_lease
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.database.tables import BatchRow
from gateway.dub.request.spec_text import options_from
from gateway.settings import GatewaySettings
from services.common.errors import BatchNotFoundError, InvalidRequestError
from services.common.server.settings import load_settings
from tests.batches import names_of, open_store
from tests.unit.batch.rows import shot_of_row

REFUSED = [
    ([], {"seed": 1}, "options", "name the one shot that takes them, not all"),
    (["done", "waits"], {"seed": 1}, "options", "not 2"),
    (["done"], {"method": "unheard"}, "options.method", "unheard"),
    (["done"], {"fit": "loop", "expression": "keep"}, "options.expression", "expression"),
    (["scene"], {"face": "1"}, "options.face", "face"),
    (["waits"], {"seed": 1}, "id", "shot waits is waiting: wait until it has ended"),
]
DAY_S = 86400


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


@pytest.fixture
def night(tmp_path: Path) -> BatchStore:
    """A batch of a shot that is done, a shot that waits, and a scene that is done."""
    store = open_store(tmp_path)
    lines = [{"start": 0, "speech": "/a.wav", "face": 0}]
    scene = shot_of_row(id="scene", footage="/plate.mp4", output="/scene.mp4", lines=lines)
    plain = [shot_of_row(id=name, footage="/plate.mp4", output=f"/{name}.mp4", expressiveness=0.8) for name in ("done", "waits")]
    store.create(manifest_of("night", [*plain, scene]), "gateway")
    for name in ("done", "scene"):
        store.put("night", ShotRecord(id=name, state=ShotState.DONE))
    return store


@pytest.mark.parametrize(("ids", "options", "field", "said"), REFUSED)
def test_wrong_options_are_refused(night: BatchStore, ids: list[str], options: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        check_options(night, "night", ids, options_from(options)[0], lambda shot, _: shot.dub.method or "dubstage")
    assert caught.value.field == field
    assert night.options("night", "done") == {}


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({"output": "/x.mp4"}, "output", "cannot be changed in a batch; these options can: method, face"),
        ({"sparkle": 1}, "sparkle", "cannot be changed"),
        ({"expressiveness": 9}, "expressiveness", "takes less than or equal to 1.5, not 9"),
        ({"expressiveness": "1"}, "expressiveness", 'takes a valid number, not "1"'),
        ({"face": "left"}, "face", "left"),
    ],
)
def test_words_of_other_options_are_refused(row: dict[str, object], field: str, said: str) -> None:
    (wrong,) = options_from(row)[1]
    assert wrong.field == field
    assert said in str(wrong)


def test_options_of_a_redo(night: BatchStore, tmp_path: Path) -> None:
    """A shot, and a scene, begin anew with other options, which the audit log names."""
    for name, options in {"done": {"expressiveness": 1.2, "expression": None}, "scene": {"seed": 4}}.items():
        checked = check_options(night, "night", [name], options_from(options)[0], lambda shot, _: shot.dub.method or "dubstage")
        assert begin_anew(night, "night", [name], checked) == [name]
        assert night.record("night", name) == ShotRecord(id=name)
    assert (night.shot("night", 0).dub.expressiveness, night.shot("night", 2).dub.seed) == (1.2, 4)
    event = batch_event(EventKind.BATCH_RETRIED, "night", ["done"], options=ShotOptions(expressiveness=1.2, seed=4))
    assert event.details == {"shots": 1, "shot": "done", "expressiveness": "1.2", "seed": "4"}
    with pytest.raises(BatchNotFoundError, match="no shot 'none'"):
        check_options(night, "night", ["none"], ShotOptions(seed=4), lambda shot, _: shot.dub.method or "dubstage")


def test_without_any_batch_there_is_nothing_to_forget(tmp_path: Path) -> None:
    pictures = BatchPictures(open_store(tmp_path / "none"))
    assert pictures.forget("ann") == {PICTURE: set()}
    assert pictures.left("ann") == (0, [])


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return load_settings(GatewaySettings, data_dir=tmp_path, batch_max_age_days=30)


@pytest.fixture
def store(settings: GatewaySettings) -> BatchStore:
    return open_store(settings.data_dir)


def days_ago(days: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def batch(
    store: BatchStore,
    name: str,
    *,
    made: float,
    ended: Sequence[float | None] = (),
    cancelled: int = 0,
    picture_bytes: int = 10,
) -> None:
    """A batch that was made so many days ago, with the age of each shot's end (None: it runs), and shots cancelled early."""
    shots = [
        shot_of_row(id=f"s{number}", footage="/plate.mp4", output=f"/out/{number}.mp4") for number in range(len(ended) + cancelled)
    ]
    store.create(manifest_of(name, shots), "local")
    with store.database.writing() as session:
        session.execute(update(BatchRow).where(BatchRow.name == name).values(created_at=days_ago(made)))
    for shot, age in zip(shots, ended, strict=False):
        state = ShotState.RUNNING if age is None else ShotState.DONE
        store.put(name, ShotRecord(id=shot.id, state=state, ended_at="" if age is None else days_ago(age)))
        store.put_thumbnail(name, shot.id, bytes(picture_bytes))
    store.cancel(name, [shot.id for shot in shots[len(ended) :]])


def never(name: str) -> bool:
    return False


def test_batches_expire_after_last_shot(settings: GatewaySettings, store: BatchStore) -> None:
    """Batches expire when the last shot ended long ago."""
    batch(store, "old", made=50, ended=[49, 40])
    batch(store, "old-and-cancelled", made=50, ended=[49], cancelled=2)
    batch(store, "retried", made=50, ended=[49, 2])
    batch(store, "running", made=50, ended=[49, None])
    batch(store, "young", made=20, ended=[19, 19])
    store.create(manifest_of("waiting", [shot_of_row(id="s1", footage="/plate.mp4", output="/out/w.mp4")]), "local")
    assert expire_batches(settings, store, never) == ["old", "old-and-cancelled"]
    assert names_of(store) == ["retried", "running", "waiting", "young"]
    assert expire_batches(settings.model_copy(update={"batch_max_age_days": 0.0}), store, never) == []


def test_batch_under_gateway_stays(settings: GatewaySettings, store: BatchStore) -> None:
    """A batch that a gateway still looks at stays."""
    for name in ("looked-at", "left"):
        batch(store, name, made=50, ended=[49])
    assert expire_batches(settings, store, lambda name: name == "looked-at") == ["left"]
    assert names_of(store) == ["looked-at"]


def test_batch_under_command_stays(settings: GatewaySettings, store: BatchStore) -> None:
    """A batch whose videos a command looks at stays."""
    batch(store, "old", made=50, ended=[49])
    with batch_lease(store, "old"):
        assert expire_batches(settings, store, never) == []
    assert expire_batches(settings, store, never) == ["old"]


def test_oldest_batches_go_above_limit(settings: GatewaySettings, store: BatchStore) -> None:
    """The oldest batches go where all are too large."""
    for name, made in (("c", 3), ("a", 2), ("b", 1)):
        batch(store, name, made=made, ended=[made, made], picture_bytes=50_000)
    batch(store, "running", made=4, ended=[None], picture_bytes=50_000)
    assert 300_000 < sum(store.sizes_bytes().values()) < 400_000
    limited = settings.model_copy(update={"batches_max_bytes": 270_000})
    assert expire_batches(limited, store, never) == ["c"]
    assert expire_batches(limited, store, never) == []
    assert expire_batches(limited.model_copy(update={"batches_max_bytes": 1}), store, never) == ["a", "b"]
    assert names_of(store) == ["running"]


def test_worker_logs_expire(settings: GatewaySettings, store: BatchStore) -> None:
    """Logs of workers are as old as batches at most."""
    logs = settings.data_dir / "workers"
    logs.mkdir()
    old, young = logs / "night-0.log", logs / "night-1.log"
    for log in (old, young):
        log.write_text("what a worker printed")
    os.utime(old, (0, 0))
    expire_batches(settings, store, never)
    assert (old.exists(), young.exists()) == (False, True)
