"""A process that reads a manifest and ends without an answer leaves a reason, and not an error of ours."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from gateway.provenance import reading
from gateway.provenance.library import UNKNOWN, LibraryError
from gateway.provenance.verdict import State, verdict_of

ENDS: dict[str, tuple[int | None, str]] = {
    "no memory": (-signal.SIGABRT, "takes more than 2048 MiB of memory"),
    "a fault": (1, "status 1"),
    "no time": (None, "takes more than 60 s"),
}


@pytest.fixture(params=ENDS)
def reason(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of a process that ends in one of these ways."""
    status, reason = ENDS[request.param]

    def ask_aside(module: str, *_: object, limit_s: float, **__: str) -> subprocess.CompletedProcess[bytes]:
        if status is None:
            raise subprocess.TimeoutExpired(module, limit_s)
        return subprocess.CompletedProcess(module, status, b'{"place": "embed')

    monkeypatch.setattr(reading, "ask_aside", ask_aside)
    return reason


def test_no_answer_is_a_manifest_that_cannot_be_read(reason: str, carphone: Path) -> None:
    verdict = verdict_of(carphone)
    assert verdict.state == State.INVALID
    assert verdict.reasons[0].startswith("the manifest cannot be read: reading it ")
    assert reason in verdict.reasons[0]


def test_a_descriptor_is_read_from_its_beginning_and_stays_open(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    with (tmp_path / "notes.txt").open("rb") as file:
        assert file.read() == b"words"
        assert reading.read_aside(file.fileno(), UNKNOWN) == reading.Found(None, "")
        with pytest.raises(LibraryError):
            reading.read_aside(file.fileno(), None, sidecar=b"\x00\x00\x00\x20jumb" + bytes(24))
