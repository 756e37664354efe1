"""Files that are written as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.errors import InvalidRequestError
from services.common.files import create_whole, write_whole
from tests.file_limit import files_of_at_most


def test_oversized_file_keeps_earlier_one(tmp_path: Path) -> None:
    """A file that does not fit leaves the earlier file and no part."""
    path = write_whole(tmp_path / "network.onnx", b"earlier")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        write_whole(path, bytes(2000))
    assert [each.name for each in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_bytes() == b"earlier"


def test_failing_chunks_keep_earlier_file(tmp_path: Path) -> None:
    """Pieces that fail leave the earlier file and no part."""
    path = write_whole(tmp_path / "log", [b"one", b"two"])

    def pieces() -> Iterator[bytes]:
        yield b"three"
        raise InvalidRequestError("changed", field="file")

    with pytest.raises(InvalidRequestError, match="changed"):
        write_whole(path, pieces())
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("log", b"onetwo")]


@pytest.mark.parametrize(("mode", "found"), [(None, 0o644), (0o600, 0o600), (0o640, 0o640), (0o666, 0o666)])
def test_file_permissions(tmp_path: Path, mode: int | None, found: int) -> None:
    """A file has the permissions that are asked for."""
    umask = os.umask(0o022)
    try:
        write_whole(tmp_path / "new" / "file", b"content", mode=mode, parents=True)
        create_whole(tmp_path / "created", b"content", mode=mode)
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new" / "file", tmp_path / "created")} == {found}


@pytest.mark.parametrize("links", [True, False])
def test_of_several_writers_one_creates_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    path, contents = tmp_path / "key", [bytes([number]) * 32 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda content: create_whole(path, content, mode=0o600), contents))
    assert path.read_bytes() == contents[created.index(True)]
    assert (created.count(True), path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (1, 0o600, [path])
