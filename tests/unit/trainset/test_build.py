"""A build whose disk becomes full."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gateway.trainset import build as build_module
from gateway.trainset import made
from gateway.trainset.build import BuildOrder, build
from gateway.trainset.output_folder import in_output
from services.common.errors import StorageFull


def _full(*_: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def _clip_on_a_full_disk(tasks: Iterator[Any], *_: Any) -> Iterator[NoReturn]:
    next(tasks)
    with in_output(Path("set")):
        _full()
    yield _full()


@pytest.mark.parametrize("has_room_for_the_manifest", [True, False])
def test_a_full_disk_is_told_whether_the_manifest_can_be_written_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_room_for_the_manifest: bool
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.wav").touch()
    monkeypatch.setattr(build_module, "in_processes", _clip_on_a_full_disk)
    monkeypatch.setattr(build_module, "networks_digest", lambda _: "0")
    if not has_room_for_the_manifest:
        monkeypatch.setattr(made, "write_refused", _full)
    with pytest.raises(StorageFull, match=r"no space left in .*: free some, and run the same command again"):
        build(BuildOrder(folder=tmp_path / "clips", output=tmp_path / "set"), lambda *_: None, lambda _: None)
