"""The artefacts of a store are listed with the time when it was put, and checked without holding it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import ArtefactCorruptError, ArtefactNotFoundError, InvalidRequestError
from services.common.store.artefacts import ArtefactStore


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path.name}")


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
