"""A dub goes on whatever happens to the analysis that it would keep or take over."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.job import kept_analysis
from gateway.dub.job.kept_analysis import WAIT, Footage, remove_analyses, shared_analysis
from gateway.dub.request.dub_request import sha256_of, version_of
from gateway.dub.state.journal import OwnBlobs
from gateway.dub.state.records import read_note
from gateway.dub.state.workspace import FACTS, LOCK, Workspace, is_running, is_whole, lock_folder
from services.common.errors import (
    ActorNotFoundError,
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
    MediaUnsupportedError,
)
from services.common.store.artefacts import ArtefactStore
from tests.refusals import raised

FOOTAGE = Footage("plate.mov", "0" * 64)


class Away(OwnBlobs):
    """The ledger of a database that does not answer."""

    def keep(self, folder: Path, footage_sha256: str) -> None:
        raise BackendUnavailableError("the database is away")


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path / "artefacts"))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / ("a" * 32)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "job") as opened:
        yield opened


def unseen(*_: Any) -> None:
    """Show no progress."""


def track(workspace: Workspace) -> None:
    """Finish the pass over the faces."""
    workspace.faces.append(np.zeros(2, workspace.faces.dtype))
    workspace.finish("faces", {}, workspace.faces)


async def test_analysis_is_taken_over(workspace: Workspace, store: ArtefactStore, kept: Path, tmp_path: Path) -> None:
    async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen) as first:
        assert (first.is_adopted, is_running(kept)) == (False, True)
        track(workspace)
        await first.keep(workspace)
        assert not is_running(kept)
    facts = read_note(kept / FACTS)
    assert facts is not None
    assert (facts["kind"], facts["footage"]) == ("analysis", "plate.mov")
    with Workspace(tmp_path / "other") as other:
        async with shared_analysis(kept, FOOTAGE, other, store, OwnBlobs(), unseen) as second:
            assert (second.is_adopted, is_running(kept)) == (True, False)
            assert other.finished("faces", other.faces) == {}
    assert remove_analyses(kept.parent, OwnBlobs(), store)
    assert not remove_analyses(kept.parent, OwnBlobs(), store)


async def test_kept_only_of_same_file(workspace: Workspace, store: ArtefactStore, kept: Path, tmp_path: Path) -> None:
    """A file that is written anew with the same contents is the same footage. Of other contents, nothing is kept."""
    file = tmp_path / "plate.mov"
    file.write_bytes(b"take 1")
    version, digest = version_of(file), sha256_of(file)
    async with shared_analysis(kept, Footage(file.name, digest), workspace, store, OwnBlobs(), unseen) as first:
        track(workspace)
        file.unlink()
        with pytest.raises(MediaUnsupportedError):
            await first.check_file(file, version)
        file.write_bytes(b"take 1")
        assert version_of(file) != version
        await first.check_file(file, version)
        await first.keep(workspace)
    assert kept.exists()
    file.write_bytes(b"take 2")
    with Workspace(tmp_path / "other") as other:
        async with shared_analysis(kept, Footage(file.name, digest), other, store, OwnBlobs(), unseen) as second:
            assert second.is_adopted
            with raised(InvalidRequestError, match="changed while it was read", field="footage"):
                await second.check_file(file, version)
            assert not kept.exists()


async def test_dub_goes_on_without_database(workspace: Workspace, store: ArtefactStore, kept: Path) -> None:
    async with shared_analysis(kept, FOOTAGE, workspace, store, Away(), unseen) as found:
        assert (found.is_adopted, is_running(kept)) == (False, False)
        track(workspace)
        await found.keep(workspace)
    assert not kept.exists()


async def test_failed_dub_frees_the_lock(
    workspace: Workspace, store: ArtefactStore, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise BackendUnavailableError("the store is away")

    monkeypatch.setattr(kept_analysis, "remove_locked", fails)
    with pytest.raises(ValueError, match="of the dub"):
        async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen):
            raise ValueError("of the dub")
    assert not is_running(kept)


@pytest.mark.parametrize(("error", "stays"), [(InvalidRequestError("no face 7"), True), (ActorNotFoundError("erased"), False)])
async def test_failed_dub_leaves_published_analysis(
    error: DubstageError, stays: bool, workspace: Workspace, store: ArtefactStore, kept: Path
) -> None:
    """Tracked faces outlive a dub that fails later, unless the failure is an erasure, which waits for the lock of the folder."""

    async def dub() -> None:
        async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen) as found:
            track(workspace)
            await found.publish(workspace)
            assert is_running(kept), "other dubs wait until the people are learned"
            raise error

    with pytest.raises(type(error)):
        await dub()
    assert (is_whole(kept), is_running(kept)) == (stays, False)


async def test_unread_analysis_stays_after_failure(
    workspace: Workspace, store: ArtefactStore, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dub that cannot take over a whole analysis, and then fails, leaves the analysis to others."""
    async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen) as first:
        track(workspace)
        await first.keep(workspace)

    def refused(*_: Any) -> None:
        raise OSError("an error of the disk")

    with Workspace(tmp_path / "other") as other:
        monkeypatch.setattr(other, "adopt_analysis", refused)
        with pytest.raises(ValueError, match="of the dub"):
            async with shared_analysis(kept, FOOTAGE, other, store, OwnBlobs(), unseen):
                raise ValueError("of the dub")
    assert (kept / "faces.done").exists()
    assert not is_running(kept)


async def test_erased_analysis_stays_away(workspace: Workspace, store: ArtefactStore, kept: Path, tmp_path: Path) -> None:
    """A dub that took over an analysis, which an erasure deletes meanwhile, leaves nothing in its place."""
    async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen) as first:
        track(workspace)
        await first.keep(workspace)
    with Workspace(tmp_path / "other") as other:
        async with shared_analysis(kept, FOOTAGE, other, store, OwnBlobs(), unseen) as second:
            shutil.rmtree(kept)
            other.sound.append(np.zeros(1, other.sound.dtype))
            other.finish("sound", {}, other.sound)
            await second.keep(other)
    assert not kept.exists()


async def test_later_passes_are_added(workspace: Workspace, store: ArtefactStore, kept: Path, tmp_path: Path) -> None:
    """A dub that needs the footage's own sound, which the first did not, keeps the sound for the next."""
    async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen) as first:
        track(workspace)
        await first.keep(workspace)
    with Workspace(tmp_path / "other") as other:
        async with shared_analysis(kept, FOOTAGE, other, store, OwnBlobs(), unseen) as second:
            other.sound.append(np.zeros(1, other.sound.dtype))
            other.finish("sound", {}, other.sound)
            await second.keep(other)
    assert {"faces.done", "sound.done", "sound.bin"} <= {path.name for path in kept.iterdir()}


async def test_unusable_place_keeps_nothing(workspace: Workspace, store: ArtefactStore, kept: Path) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text("no folder")
    async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), unseen) as found:
        assert found.folder is None


async def test_silent_dub_is_not_waited_for(
    workspace: Workspace, store: ArtefactStore, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dub waits as long as the other shows signs of life, and a while longer."""
    monkeypatch.setattr(kept_analysis, "_DEAD_S", 0.6)
    handle = lock_folder(kept)
    os.utime(kept / LOCK, (0, 0))

    async def beats() -> None:
        for _ in range(10):
            os.utime(kept / LOCK)
            await asyncio.sleep(0.1)

    began = asyncio.get_running_loop().time()
    alive = asyncio.create_task(beats())
    told: list[tuple[str, int, int]] = []
    async with shared_analysis(kept, FOOTAGE, workspace, store, OwnBlobs(), lambda *step: told.append(step)) as found:
        assert asyncio.get_running_loop().time() - began > 1.5
        assert (found.folder, found.has_waited) == (None, True)
    assert told == [(WAIT, 0, 1), (WAIT, 1, 1)]
    await alive
    os.close(handle)
