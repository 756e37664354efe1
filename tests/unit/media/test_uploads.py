from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gateway.media.uploads import PARTIAL, PARTIAL_AGE_S, UploadFolder
from gateway.safe_paths import confine
from services.common.errors import FileInUseError, FileMissingError, InvalidRequestError, StorageRefusedError

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> UploadFolder:
    media = (tmp_path / "media").resolve()
    confine(media)
    return UploadFolder(media)


def put(folder: UploadFolder, data: bytes, *, offset: int = 0, name: str = "a.mp4", sha256: str = SHA256) -> None:
    with folder.begin(name, size_bytes=len(DATA), sha256=sha256, offset=offset) as partial:
        partial.prepare()
        partial.write(data)
        partial.finish()


@pytest.mark.parametrize("offset", [0, 1, 4999, 5000])
def test_pieces_make_the_file(folder: UploadFolder, offset: int) -> None:
    """A further call may go on at any byte that is there."""
    put(folder, DATA[:5000])
    assert (folder.get("a.mp4").received_bytes, folder.get("a.mp4").complete, folder.has("a.mp4")) == (5000, False, False)
    put(folder, DATA[offset:], offset=offset)
    assert (folder.path / "a.mp4").read_bytes() == DATA
    assert os.listdir(folder.path) == ["a.mp4"]


def test_pieces_are_hashed_once(folder: UploadFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in many pieces is read once at most, for its SHA-256."""
    read, pread = [0], os.pread

    def counted(handle: int, num_bytes: int, offset: int) -> bytes:
        data = pread(handle, num_bytes, offset)
        read[0] += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    for name, sha256, wanted in (("plain.mp4", "", 0), ("checked.mp4", SHA256, len(DATA))):
        read[0] = 0
        for offset in range(0, len(DATA), 256):
            put(folder, DATA[offset : offset + 256], offset=offset, name=name, sha256=sha256)
        assert read[0] == wanted
        with (folder.path / name).open("rb") as file:
            assert folder.sha256(file.fileno()) == SHA256
        assert read[0] == len(DATA)


def test_damaged_beginning_is_found(folder: UploadFolder) -> None:
    put(folder, DATA[:5000])
    (folder.path / f"{PARTIAL}a.mp4").write_bytes(bytes(5000))
    with pytest.raises(InvalidRequestError, match="sha256"):
        put(folder, DATA[5000:], offset=5000)
    assert os.listdir(folder.path) == []


def test_replaced_file_stays_until_the_end(folder: UploadFolder) -> None:
    put(folder, DATA)
    other = DATA[::-1]
    put(folder, other[:10], sha256="")
    assert (folder.path / "a.mp4").read_bytes() == DATA
    put(folder, other[10:], offset=10, sha256="")
    assert (folder.path / "a.mp4").read_bytes() == other


def test_one_call_writes(folder: UploadFolder) -> None:
    again = folder.begin("a.mp4", size_bytes=5, sha256="", offset=0)
    with folder.begin("a.mp4", size_bytes=5, sha256="", offset=0):
        with pytest.raises(FileInUseError), again:
            pass
        with pytest.raises(FileInUseError):
            folder.remove("a.mp4")
    assert os.listdir(folder.path) == []
    put(folder, DATA[:1])
    folder.remove("a.mp4")
    with pytest.raises(FileMissingError):
        folder.get("a.mp4")


def test_links_lead_nowhere(folder: UploadFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.path.mkdir(parents=True)
    (folder.path / f"{PARTIAL}a.mp4").symlink_to(outside / "a.mp4")
    with pytest.raises(StorageRefusedError):
        put(folder, DATA)
    folder.path.joinpath(f"{PARTIAL}a.mp4").unlink()
    folder.path.rmdir()
    folder.path.symlink_to(outside)
    with pytest.raises(StorageRefusedError):
        put(folder, DATA)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".a", "a b", "ä", "a" * 129, "a\n"])
def test_wrong_names(folder: UploadFolder, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        put(folder, DATA, name=name)


def test_expiry_keeps_used_files(folder: UploadFolder) -> None:
    for name in ("used.mp4", "old.mp4"):
        put(folder, DATA, name=name)
    put(folder, DATA[:1], name="part.mp4")
    now = (folder.path / "old.mp4").stat().st_mtime
    assert folder.expire(now + PARTIAL_AGE_S + 9, 0.0, lambda: ()) == ["part.mp4"]
    assert folder.expire(now + 90, 100.0, lambda: ()) == []
    assert folder.expire(now + 109, 100.0, lambda: {folder.path / "used.mp4"}) == ["old.mp4"]
    assert [upload.name for upload in folder.stored()] == ["used.mp4"]
