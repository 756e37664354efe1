"""Processes that open files of strangers inherit no secret of the process that starts them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.media.inspection import inspect_sound, inspect_tags, inspect_video
from gateway.provenance.library import LibraryError
from gateway.provenance.seal import sign_manifest
from gateway.provenance.signer import Credential
from gateway.provenance.verdict import read_credentials
from services.common.errors import MediaUnsupportedError

SECRETS = {
    "AWS_ACCESS_KEY_ID": "secret-1",
    "AWS_SECRET_ACCESS_KEY": "secret-2",
    "AWS_SESSION_TOKEN": "secret-3",
    "DUBSTAGE_DATABASE_URL": "postgresql+psycopg://dubstage:secret-4@database/actors",
    "DUBSTAGE_AUTH_TOKEN": "secret-5",
    "DUBSTAGE_PROVENANCE_SIGNER_COMMAND": "sign --pin secret-6",
    "PGPASSWORD": "secret-7",
    "SOMEBODY_ELSES_API_KEY": "secret-8",
    "HTTPS_PROXY": "http://user:secret-9@proxy",
}
KEPT = {"LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": "/opt/lib", "PATH": "/usr/bin:/bin", "TZ": "Asia/Tokyo"}


def signed(folder: Path, url: str = "") -> None:
    credential = Credential(chain=b"", key=b"secret-10", algorithm="es256")
    sign_manifest({}, [], credential, folder=folder, time_stamp_url=url)


def read(video: Path) -> None:
    with video.open("rb") as file:
        read_credentials(file.fileno(), "video/mp4")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], object]], dict[str, str]]:
    """The environment of the process that a function starts, as the process itself sees it."""
    dump, child = tmp_path / "environment", tmp_path / "python"
    child.write_text(f"#!/bin/sh\ncat /proc/$$/environ > {dump}\nexit 1\n")
    child.chmod(0o755)
    video = tmp_path / "video.mp4"
    video.write_bytes(b"video of a stranger")
    monkeypatch.setattr(sys, "executable", str(child))
    for name, value in {**SECRETS, **KEPT}.items():
        monkeypatch.setenv(name, value)

    def of(start: Callable[[Path], object]) -> dict[str, str]:
        with pytest.raises((MediaUnsupportedError, LibraryError)):
            start(video)
        lines = dump.read_bytes().decode().split("\0")
        return dict(line.split("=", 1) for line in lines if line)

    return of


@pytest.mark.parametrize(
    "start",
    [inspect_video, inspect_sound, inspect_tags, read, lambda video: signed(video.parent)],
    ids=["video", "sound", "tags", "manifest", "signature"],
)
def test_untrusted_child_gets_no_secret(
    environment: Callable[[Callable[[Path], object]], dict[str, str]], start: Callable[[Path], object]
) -> None:
    """A process that reads files of strangers gets no secret."""
    found = environment(start)
    assert [name for name, value in found.items() if "secret" in value] == []
    assert SECRETS.keys().isdisjoint(found)
    assert {name: found.get(name) for name in KEPT} == KEPT
    assert sys.path[-1] in found["PYTHONPATH"].split(":")


def test_time_stamp_child_knows_proxy(
    environment: Callable[[Callable[[Path], object]], dict[str, str]],
) -> None:
    """A process that asks a time stamp authority knows the proxy besides."""
    found = environment(lambda video: signed(video.parent, "http://authority.test"))
    assert {name for name, value in found.items() if "secret" in value} == {"HTTPS_PROXY"}
