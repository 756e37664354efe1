"""Batches and their media in a real S3, over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from gateway.batch import index
from gateway.batch.index import BatchIndex
from gateway.batch.manifest import file_mistakes, manifest_or_mistakes, read_manifest
from gateway.batch.media import consent_at, delivered, digest_of, fetched, input_problem
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState, manifest_of
from gateway.provenance.binding import sidecar_of
from services.common.errors import (
    ArtefactCorruptError,
    ArtefactNotFoundError,
    BackendUnavailableError,
    InvalidRequestError,
    StorageRefusedError,
    WorkCancelledError,
)
from tests.contract.ports import free_port
from tests.contract.stores.s3_servers import BUCKET, S3Server, answering
from tests.unit.batch.rows import shot_of_row

Aws = Callable[..., None]
SHOTS = [shot_of_row(id=f"s{number}", footage="/plate.mp4", output=f"/out/{number}.mp4") for number in range(12)]


@pytest.fixture
def url(request: pytest.FixtureRequest, s3: S3Server, aws: Aws) -> str:
    """A prefix of the test's own."""
    aws(s3.endpoint)
    return f"s3://{BUCKET}/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"


@pytest.fixture
def store(url: str) -> BatchStore:
    store = BatchStore(f"{url}/batches")
    store.create(manifest_of("night", SHOTS), "farm")
    return store


def fail_after(video: Path, content: bytes) -> None:
    video.write_bytes(content)
    raise ZeroDivisionError


def test_review_lists_the_decisions_of_its_shot_alone(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket may hold 100,000 decisions. Ids that begin with the id of the shot are other shots."""
    for shot in ("s1", "s10", "s11", "s1", "s2"):
        store.decide("night", Decision(id=shot, state=ReviewState.APPROVED, decided_at="2026-11-26T10:00:00.000Z"))
    assert [one.number for one in store.decisions("night", "s1")] == [1, 2]
    assert store.decisions("night", "s3") == []
    listed: list[str] = []
    plain = S3FileSystem.find

    def noted(files: S3FileSystem, path: str, **more: str) -> list[str]:
        found: list[str] = plain(files, path, **more)
        listed.extend(found)
        return found

    monkeypatch.setattr(S3FileSystem, "find", noted)
    assert store.decide("night", Decision(id="s1", state=ReviewState.REJECTED, decided_at="2026-11-26T10:00:00.000Z")).number == 3
    assert [one.rpartition("/")[2].partition("~")[0] for one in listed] == ["s1", "s1"]
    assert set(store.last_decisions("night")) == {"s1", "s10", "s11", "s2"}


def test_bucket_batch_has_an_index(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of objects tell which records an index of a bucket still knows, and single rows are read by their bytes."""
    monkeypatch.setattr(index, "UNSAVED", 1)
    store.put("night", ShotRecord(id="s3", state=ShotState.DONE, frames=25))
    first = BatchIndex(store, "night").shots()
    store.put("night", ShotRecord(id="s4", state=ShotState.DONE, frames=30))
    again = BatchIndex(BatchStore(store.database), "night").shots()
    assert (again[3], again[4].facts.frames) == (first[3], 30)
    assert store.shots("night", [7, 2]) == [SHOTS[7], SHOTS[2]]


def prefix(url: str) -> str:
    return url.removeprefix(f"s3://{BUCKET}/")


def test_bucket_batch_reopened_by_url(store: BatchStore) -> None:
    """A batch in a bucket is opened again by its URL."""
    store.set_details("night", {"jobs": ["a"]})
    store.put("night", ShotRecord(id="s3", state=ShotState.DONE, frames=25))
    store.put_thumbnail("night", "s3", b"jpeg")
    again = BatchStore(store.database)
    assert again.names() == ["night"]
    assert (again.facts("night").rows, again.facts("night").details) == (12, {"jobs": ["a"]})
    assert again.manifest("night") == SHOTS
    assert [record.id for record in again.records("night")] == [shot.id for shot in SHOTS]
    assert again.records("night")[3] == again.record("night", "s3") == ShotRecord(id="s3", state=ShotState.DONE, frames=25)
    assert (again.thumbnail("night", "s3"), again.thumbnail("night", "s4")) == (b"jpeg", None)
    assert again.thumbnails("night", ["s3", "s4"]) == {"s3": b"jpeg"}


def test_concurrent_workers_create_one_batch(url: str) -> None:
    """Many workers create one batch and another manifest is refused."""
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: BatchStore(url).create(manifest_of("night", SHOTS), "farm"), range(8)))
    assert len(set(map(repr, made))) == 1
    with pytest.raises(InvalidRequestError, match="another manifest"):
        BatchStore(url).create(manifest_of("night", SHOTS[:3]), "farm")
    assert len(BatchStore(url).manifest("night")) == 12


def test_cancelled_shots_wait_again_after_a_retry(store: BatchStore) -> None:
    store.cancel("night", ["s1", "s2"])
    assert store.is_cancelled("night", "s1")
    assert [record.id for record in store.records("night") if record.state is ShotState.CANCELLED] == ["s1", "s2"]
    store.reset("night", ["s1"])
    assert not store.is_cancelled("night", "s1")
    assert store.record("night", "s1") == ShotRecord(id="s1")
    assert store.cancelled("night") == {"s2"}


def test_changed_records_are_seen(store: BatchStore, s3: S3Server, url: str) -> None:
    """Records that changed since the last look are seen."""
    for shot in SHOTS:
        store.put("night", ShotRecord(id=shot.id, frames=1))
    assert sum(record.frames for record in store.records("night")) == 12
    BatchStore(store.database).put("night", ShotRecord(id="s7", frames=100))
    assert [record.frames for record in store.records("night")] == [100 if shot.id == "s7" else 1 for shot in SHOTS]
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/batches/night/shots/s5.json", Body=b"{")
    with pytest.raises(ArtefactCorruptError, match=r"night/shots/s5\.json is damaged"):
        store.records("night")


def test_failing_store_names_setting(aws: Aws) -> None:
    """A store that does not answer or refuses is reported with its setting."""
    aws(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BackendUnavailableError, match=r"the store of batches s3://videos/batches at http.* does not answer"):
        BatchStore("s3://videos/batches").facts("night")
    with answering(403, "AccessDenied") as (endpoint, _):
        aws(endpoint)
        with pytest.raises(StorageRefusedError, match=r"the store of batches .* refuses: AccessDenied.*DUBSTAGE_BATCHES_URL"):
            BatchStore("s3://videos/batches").put("night", ShotRecord(id="s1"))
    with pytest.raises(InvalidRequestError, match="names no bucket") as caught:
        BatchStore("s3:///batches")
    assert caught.value.field == "DUBSTAGE_BATCHES_URL"


def test_url_footage_size_limit(url: str, s3: S3Server, tmp_path: Path) -> None:
    """Footage of a URL is copied up to a limit."""
    data = bytes(range(256)) * 40_000
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/plate.mov", Body=data)
    copy = fetched(f"{url}/plate.mov", tmp_path, field="footage", max_bytes=1 << 30)
    assert (copy.name, copy.read_bytes()) == ("footage.mov", data)
    with pytest.raises(InvalidRequestError, match=r"plate.mov is larger than 0.001 GB") as caught:
        fetched(f"{url}/plate.mov", tmp_path, field="speech", max_bytes=1_000_000)
    assert caught.value.field == "speech"
    with pytest.raises(ArtefactNotFoundError, match=r"no such file .*none\.mov"):
        fetched(f"{url}/none.mov", tmp_path, field="footage", max_bytes=1 << 30)
    assert [path.name for path in tmp_path.iterdir()] == ["footage.mov"]


def test_slow_copy_ends(url: str, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is too slow or not needed any more ends."""
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/plate.mov", Body=bytes(1000))
    place = f"{url}/plate.mov"

    def ended() -> None:
        raise WorkCancelledError("another gateway goes on")

    with pytest.raises(WorkCancelledError, match="another gateway"):
        fetched(place, tmp_path, field="footage", max_bytes=1 << 30, confirm=ended)
    monkeypatch.setattr("gateway.batch.media.PATIENCE_S", -1.0)
    with pytest.raises(BackendUnavailableError, match=r"sent 0 MB in .* too slow"):
        fetched(place, tmp_path, field="footage", max_bytes=1 << 30)
    assert list(tmp_path.iterdir()) == []


def test_bucket_consent_records_checked(url: str, s3: S3Server) -> None:
    """Consent records of a bucket are read when a batch is checked."""
    record = {"subject": "Jane", "granted_by": "Jane", "scope": "a video", "date": "2026-01-01", "reference": "drawer 3"}
    for name, content in (("good", json.dumps(record)), ("bad", "{}"), ("large", " " * 100_000)):
        s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/{name}.json", Body=content.encode())
    assert consent_at(f"{url}/good.json").subject == "Jane"
    for name, said in (("bad", "subject"), ("large", "larger than 64 KiB")):
        with pytest.raises(InvalidRequestError, match=said) as caught:
            consent_at(f"{url}/{name}.json")
        assert f"{url}/{name}.json" in caught.value.message
    with pytest.raises(ArtefactNotFoundError):
        consent_at(f"{url}/none.json")
    shots = {
        line: shot_of_row(id=name, footage=f"{url}/good.json", output=f"/tmp/{name}.mp4", consent=f"{url}/{name}.json")
        for line, name in enumerate(("good", "bad", "none"), start=1)
    }
    assert [(mistake.line, mistake.field) for mistake in file_mistakes(shots)] == [(2, "consent"), (3, "consent")]


def test_upload_is_whole_with_digest(url: str, tmp_path: Path) -> None:
    """A video is uploaded whole or not at all and its digest is known."""
    place = f"{url}/out/a.mp4"
    assert digest_of(place) is None
    with pytest.raises(ZeroDivisionError), delivered(place, tmp_path) as video:
        fail_after(video, b"half")
    assert digest_of(place) is None
    for content in (b"first", b"second"):
        with delivered(place, tmp_path) as video:
            assert video.suffix == ".mp4"
            video.write_bytes(content)
        assert digest_of(place) == hashlib.sha256(content).hexdigest()
    assert fetched(place, tmp_path, field="footage", max_bytes=100).read_bytes() == b"second"


def test_manifest_uploaded_with_video(url: str, s3: S3Server, tmp_path: Path) -> None:
    """The manifest beside a video is uploaded with the video."""
    with delivered(f"{url}/out/a.mkv", tmp_path) as video:
        video.write_bytes(b"video")
        sidecar_of(video).write_bytes(b"manifest")
    for key, content in (("a.mkv", b"video"), ("a.mkv.c2pa", b"manifest")):
        assert s3.client.get_object(Bucket=BUCKET, Key=f"{prefix(url)}/out/{key}")["Body"].read() == content
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/out/b.mkv.c2pa", Body=b"mine")
    with (
        pytest.raises(InvalidRequestError, match=r"b\.mkv\.c2pa exists, and dubstage did not write it"),
        delivered(f"{url}/out/b.mkv", tmp_path),
    ):
        pytest.fail("the block is not entered")


def test_an_object_that_dubstage_did_not_write_stays(url: str, s3: S3Server, tmp_path: Path) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/mine.mp4", Body=b"mine")
    assert digest_of(f"{url}/mine.mp4") == ""
    with pytest.raises(InvalidRequestError, match="dubstage did not write it") as caught, delivered(f"{url}/mine.mp4", tmp_path):
        pytest.fail("the block is not entered")
    assert caught.value.field == "output"


def test_manifest_urls_are_checked(url: str, s3: S3Server, tmp_path: Path) -> None:
    """URLs of a manifest are checked with its files."""
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/a.mp4", Body=b"video")
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix(url)}/empty.mp4", Body=b"")
    rows = [{"id": name, "footage": f"{url}/{name}.mp4", "output": f"{url}/out/{name}.mp4"} for name in ("a", "b", "empty")]
    path = tmp_path / "shots.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert manifest_or_mistakes(path) == (
        f"{path}:2: footage: no such file {url}/b.mp4",
        f"{path}:3: footage: {url}/empty.mp4 is empty",
    )
    assert input_problem(f"{url}/a.mp4") == ""
    path.write_text(f"{json.dumps(rows[0])}\n")
    assert read_manifest(path).shots[0].dub.footage_uri == f"{url}/a.mp4"
