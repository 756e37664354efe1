"""Backup, wipe, restore: a dub with the restored actor has the same bytes, and older videos are still those of the installation."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli.inspect import EXIT_UNKNOWN
from gateway.provenance.binding import media_sha256
from tests.system.dubbing import SPEECH, cut

OWN = "signed with a certificate of this installation"
Dubstage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.long
def test_restored_store_same_bytes(forked_dubstage: Dubstage, carphone: Path, tmp_path: Path) -> None:
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, 1.2)

    def run(*arguments: object) -> str:
        done = forked_dubstage(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def dub(video: Path) -> str:
        run("dub", footage, "--audio", SPEECH, "--actor", "ann", "--no-personalize", "-o", video)
        return media_sha256(video)

    run("actor", "create", "ann", footage, "--no-personalize")
    before = dub(tmp_path / "before.mp4")
    assert "1 actors" in run("backup", tmp_path / "first.tar")
    assert "1 actors, 0 new blobs" in run("backup", tmp_path / "second.tar", "--base", tmp_path / "first.tar")
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / "artefacts")
    assert forked_dubstage("dub", footage, "--audio", SPEECH, "--actor", "ann", "-o", tmp_path / "none.mp4").returncode != 0
    unknown = forked_dubstage("inspect", tmp_path / "before.mp4")
    assert unknown.returncode == EXIT_UNKNOWN, unknown.stderr
    assert OWN not in unknown.stdout
    assert "1 actors" in run("restore", tmp_path / "second.tar", "--base", tmp_path / "first.tar")
    assert OWN in run("inspect", tmp_path / "before.mp4")
    assert dub(tmp_path / "after.mp4") == before
