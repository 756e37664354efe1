"""Artefacts of a store: put, read, listed with the time when they were put, checked, refused and erased."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.errors import ArtefactCorruptError, ArtefactNotFoundError, InvalidRequestError, StorageFullError
from services.common.store.artefacts import ArrayCache, ArtefactRef, ArtefactStore, artefact_field, check_ref
from tests.file_limit import files_of_at_most
from tests.refusals import raised


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path.name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_equal_bytes_equal_references(store: ArtefactStore) -> None:
    """Bytes come back and equal bytes have equal references."""
    ref = store.put_bytes(b"mouth")
    assert store.get_bytes(ref) == b"mouth"
    assert ref.size_bytes == 5
    assert ref.uri == f"{store.url}/{ref.sha256[:2]}/{ref.sha256}"
    assert store.put_bytes(b"mouth") == ref
    assert store.put_bytes(b"") != ref


def test_a_file_has_the_reference_of_its_bytes(store: ArtefactStore, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes((2 << 20) + 17)
    (tmp_path / "clip").write_bytes(data)
    ref = store.put_file(tmp_path / "clip")
    assert store.get_bytes(ref) == data
    assert ref == store.put_bytes(data)
    with pytest.raises(InvalidRequestError, match="no such file"):
        store.put_file(tmp_path / "missing")


@pytest.mark.parametrize("change", ["appended", "overwritten"])
def test_changing_file_leaves_no_blob(store: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A file that changes while it is stored leaves no blob."""
    clip = tmp_path / "clip"
    clip.write_bytes(b"x" * (3 << 20))
    intact = ArtefactStore._intact

    def changing(one: ArtefactStore, path: str, ref: ArtefactRef) -> bool:
        with clip.open("r+b") as file:
            file.seek(0, os.SEEK_END if change == "appended" else os.SEEK_SET)
            file.write(b"y" * (1 << 20))
        return intact(one, path, ref)

    with monkeypatch.context() as patched:
        # The digest of the file is known, and its bytes are not copied yet.
        patched.setattr(ArtefactStore, "_intact", changing)
        with pytest.raises(InvalidRequestError, match=r"/clip changed"):
            store.put_file(clip)
    assert list(store.stored()) == []
    assert store.get_bytes(store.put_file(clip)) == clip.read_bytes()


def test_references_of_wrong_form_are_named(store: ArtefactStore) -> None:
    """The longest uri is well-formed, a longer one, a wrong digest and a negative size are not. The error names the field."""
    ref = ArtefactRef("u" * 2048, "0" * 64, 0)
    check_ref(ref)
    for wrong, field in (
        (replace(ref, uri="u" * 2049), "uri"),
        (replace(ref, sha256="0" * 63), "sha256"),
        (replace(ref, sha256="F" * 64), "sha256"),
        (replace(ref, size_bytes=-1), "size_bytes"),
    ):
        with raised(InvalidRequestError, field=f"clip.{field}"):
            check_ref(wrong, "clip")


def test_exists_and_delete(store: ArtefactStore) -> None:
    ref = store.put_bytes(b"mouth")
    assert store.exists(ref)
    assert store.delete(ref)
    assert not store.exists(ref)
    assert not store.delete(ref)
    with raised(ArtefactNotFoundError, match=ref.sha256, resource=ref.uri):
        store.get_bytes(ref)


def test_changed_blob_refused_and_repaired(folder: Path) -> None:
    """A changed blob is refused and putting it again repairs it."""
    store = ArtefactStore(folder)
    ref = store.put_bytes(b"mouth")
    files(folder)[0].write_bytes(b"moutH")
    with pytest.raises(ArtefactCorruptError) as caught:
        store.get_bytes(ref)
    assert ref.uri in str(caught.value)
    assert ref.sha256 in str(caught.value)
    assert caught.value.resource == ref.uri
    assert store.put_bytes(b"mouth") == ref
    assert store.get_bytes(ref) == b"mouth"


def test_mismatching_reference_refused(store: ArtefactStore) -> None:
    """A reference of two artefacts is the caller's mistake, and no damage of the store."""
    ref, other = store.put_bytes(b"mouth"), store.put_bytes(b"nose")
    for read in (store.get_bytes, store.check):
        refused = raised(InvalidRequestError, match=f"{other.sha256}: take the whole reference", field="config.bank.sha256")
        with refused, artefact_field("config.bank"):
            read(ArtefactRef(ref.uri, other.sha256, ref.size_bytes))


@pytest.mark.parametrize("sha256", ["", "0" * 63, "G" * 64, "A" * 64])
def test_a_malformed_digest_is_named(store: ArtefactStore, sha256: str) -> None:
    ref = store.put_bytes(b"mouth")
    with raised(InvalidRequestError, field="sha256"):
        store.get_bytes(ArtefactRef(ref.uri, sha256, 5))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file:///etc/passwd",
        "/etc/passwd",
        "{root}",
        "{root}/../secret",
        "{root}/ab/../../secret",
        "{root}2/aa/{blob}",
        "{root}/aa/{blob}",
        "{root}/{blob}",
        "{root}//{blob2}/{blob}",
        "{root}/{blob2}/{blob}/",
        "{root}/{blob2}/{blob}\n",
        "s3://bucket/{blob2}/{blob}",
        "http://127.0.0.1/{blob2}/{blob}",
    ],
)
def test_nothing_outside_of_the_root_can_be_named(folder: Path, uri: str) -> None:
    store = ArtefactStore(folder)
    ref = store.put_bytes(b"mouth")
    (folder.parent / "secret").write_bytes(b"mouth")
    uri = uri.format(root=store.url, blob=ref.sha256, blob2=ref.sha256[:2])
    outside = ArtefactRef(uri, ref.sha256, ref.size_bytes)
    for use in (store.get_bytes, store.exists, store.delete, store.get_arrays):
        with pytest.raises(InvalidRequestError, match="does not belong"):
            use(outside)
    assert (folder.parent / "secret").exists()


@pytest.mark.parametrize("by", ["bytes", "file"])
def test_full_disk_leaves_nothing(folder: Path, tmp_path: Path, by: str) -> None:
    """No space left is named and leaves nothing behind."""
    store = ArtefactStore(folder)
    data = bytes(1 << 20)
    (tmp_path / "clip").write_bytes(data)
    with files_of_at_most(1 << 19), pytest.raises(StorageFullError, match="DUBSTAGE_ARTEFACTS_URL") as caught:
        store.put_bytes(data) if by == "bytes" else store.put_file(tmp_path / "clip")
    assert caught.value.subject == f"file://…/{folder.name}"
    assert str(folder.parent) not in caught.value.message
    assert files(folder) == []


def test_arrays_independent_of_order(store: ArtefactStore) -> None:
    """Arrays come back whatever the order they were given in."""
    arrays = {"landmarks": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "seen": np.array([True, False])}
    ref = store.put_arrays(arrays, {"model": "ugc", "clip": "a"})
    assert store.put_arrays(dict(reversed(arrays.items())), {"clip": "a", "model": "ugc"}) == ref
    read = store.get_arrays(ref)
    assert dict(read.metadata) == {"model": "ugc", "clip": "a"}
    np.testing.assert_array_equal(read["landmarks"], arrays["landmarks"])
    assert read["landmarks"].dtype == np.float32
    assert not read["landmarks"].flags.writeable
    with pytest.raises(InvalidRequestError, match="no array 'mask'"):
        read["mask"]


def test_a_blob_that_holds_no_arrays_is_refused(store: ArtefactStore) -> None:
    with pytest.raises(InvalidRequestError, match="named arrays"):
        store.get_arrays(store.put_bytes(b"just some text, long enough"))


def test_cache_is_bounded_lru(folder: Path) -> None:
    """The cache stays within its bytes and keeps what was used last."""
    store = ArtefactStore(folder)
    cache = ArrayCache(store, max_bytes=2000)
    refs = [store.put_arrays({"a": np.full(800, n, np.uint8)}) for n in range(3)]
    first = cache.get_arrays(refs[0])
    cache.get_arrays(refs[1])
    assert cache.get_arrays(refs[0]) is first
    cache.get_arrays(refs[2])
    assert cache._held_bytes == 1600
    assert cache.get_arrays(refs[0]) is first
    big = store.put_arrays({"a": np.zeros(5000, np.uint8)})
    assert cache.get_arrays(big)["a"].shape == (5000,)
    assert cache._held_bytes == 1600


def test_the_cache_does_not_serve_what_was_erased(folder: Path) -> None:
    store = ArtefactStore(folder)
    cache = ArrayCache(store, max_bytes=2000)
    ref = store.put_arrays({"a": np.zeros(10, np.uint8)})
    cache.get_arrays(ref)
    store.delete(ref)
    with pytest.raises(ArtefactNotFoundError):
        cache.get_arrays(ref)
    assert cache._held_bytes == 0


@pytest.mark.parametrize(
    "uri",
    ["file://[x", "file:///x\0y/aa/{blob}", "{root}/%2e%2e/{blob}", "x" * 5000, "{root}/" + "é" * 4000, "memory://[", "\ud83d"],
)
def test_invalid_uri_refused(folder: Path, uri: str) -> None:
    """An invalid URI is refused whatever it holds."""
    store = ArtefactStore(folder)
    ref = store.put_bytes(b"mouth")
    wrong = ArtefactRef(uri.replace("{root}", store.url).replace("{blob}", ref.sha256), ref.sha256, ref.size_bytes)
    for use in (store.get_bytes, store.exists, store.delete, store.get_arrays):
        with pytest.raises(InvalidRequestError) as caught:
            use(wrong)
        assert len(caught.value.message) < 1000


def test_moved_store_names_setting(folder: Path) -> None:
    """A store that moved is reported by its setting and without its place."""
    here, elsewhere = ArtefactStore(folder / "here"), ArtefactStore(folder / "elsewhere")
    ref = here.put_bytes(b"mouth")
    with pytest.raises(InvalidRequestError, match="DUBSTAGE_ARTEFACTS_URL") as caught:
        elsewhere.get_bytes(ref)
    assert "file://…/elsewhere" in caught.value.message
    assert str(folder / "elsewhere") not in caught.value.message
    assert "make the artefact anew" in caught.value.message


def test_store_credentials_never_shown() -> None:
    """The credentials of a store are in no message."""
    store = ArtefactStore("memory://user:secret@videos")
    with pytest.raises(InvalidRequestError, match="videos") as caught:
        store.exists(ArtefactRef("file:///x", "0" * 64, 1))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("size", [-1, -(2**63), 4, 2**62])
def test_wrong_blob_size_refused(store: ArtefactStore, size: int) -> None:
    """A size that is not the blob's is refused."""
    ref = store.put_bytes(b"mouth")
    with raised(InvalidRequestError, match=r"size_bytes|5 bytes, not", field="size_bytes"):
        store.get_bytes(ArtefactRef(ref.uri, ref.sha256, size))
    assert store.get_bytes(ArtefactRef(ref.uri, ref.sha256, 0)) == b"mouth"


def test_huge_blob_is_not_read(store: ArtefactStore) -> None:
    """A huge blob is not read where a small artefact is expected."""
    ref = store.put_bytes(bytes(1000))
    assert len(store.get_bytes(ref, max_bytes=1000)) == 1000
    with pytest.raises(InvalidRequestError, match="at most 999"):
        store.get_arrays(ref, max_bytes=999)


def test_all_blobs_are_listed_with_their_references(store: ArtefactStore) -> None:
    assert list(store.stored()) == []
    began = time.time() - 2.0
    refs = {store.put_bytes(text) for text in (b"one", b"two", b"")}
    found = list(store.stored())
    assert {blob.ref for blob in found} == refs
    assert all(began <= blob.put_at <= time.time() + 2.0 for blob in found)


@pytest.mark.parametrize("by", ["bytes", "file"])
def test_repeated_put_renews_age(tmp_path: Path, by: str) -> None:
    """A blob of a folder that is put again is as young as a new one."""
    store, file = ArtefactStore(tmp_path / "store"), tmp_path / "clip"
    file.write_bytes(b"one")
    ref = store.put_bytes(b"one")
    os.utime(ref.uri.removeprefix("file://"), (0, 0))
    assert (store.put_bytes(b"one") if by == "bytes" else store.put_file(file)) == ref
    (found,) = store.stored()
    assert found.put_at > time.time() - 60


def test_files_that_are_no_blobs_are_not_listed(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)
    ref = store.put_bytes(b"one")
    folder = Path(ref.uri.removeprefix("file://")).parent
    for name in (".partial-x", "README", "f" * 64):
        (folder / name).write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert [blob.ref for blob in store.stored()] == [ref]


def test_a_whole_blob_passes_the_check(store: ArtefactStore) -> None:
    store.check(store.put_bytes(b"x" * 100_000))


def test_what_is_wrong_with_a_blob_is_told(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)
    ref = store.put_bytes(b"one")
    with pytest.raises(InvalidRequestError):
        ArtefactStore(tmp_path / "other").check(ref)
    with pytest.raises(InvalidRequestError):
        store.check(replace(ref, sha256="x"))
    blob = Path(ref.uri.removeprefix("file://"))
    blob.chmod(0o600)
    for content in (b"two", b"one and more", b""):
        blob.write_bytes(content)
        with pytest.raises(ArtefactCorruptError):
            store.check(ref)
    blob.unlink()
    with pytest.raises(ArtefactNotFoundError):
        store.check(ref)


def test_only_old_partials_are_removed(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)
    folder = Path(store.put_bytes(b"one").uri.removeprefix("file://")).parent
    old, young = folder / ".partial-old", folder / ".partial-young"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert store.remove_partials(time.time() - 60) == 4
    assert (old.exists(), young.exists(), len(list(store.stored()))) == (False, True, 1)
    assert ArtefactStore("memory://partials").remove_partials(time.time()) == 0
