from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from gateway.batch.failures import Failure, failure_of
from services.common.errors import BackendUnavailable, InvalidRequest, StorageFull


def told(error: Exception) -> Failure:
    try:
        raise error
    except type(error) as raised:
        return failure_of(raised)


@pytest.fixture
def details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_our_errors_keep_message_and_exit_code(details: Path) -> None:
    assert told(InvalidRequest("no method 'x'")) == Failure("no method 'x'", 10)
    assert told(BackendUnavailable("away")) == Failure("away", 20, retryable=True)
    assert list(details.iterdir()) == []


def test_a_bug_is_told_without_its_traceback_which_lies_in_a_file(details: Path) -> None:
    failure = told(KeyError("secret"))
    (file,) = details.iterdir()
    assert (failure.exit_code, failure.retryable) == (12, False)
    assert str(file) in failure.message
    assert "secret" not in failure.message
    assert "KeyError: 'secret'" in file.read_text()


def test_a_fault_of_the_machine_is_named(details: Path) -> None:
    failure = told(OSError(errno.EROFS, "Read-only file system", "/films/a.mp4"))
    assert (failure.exit_code, failure.retryable) == (11, False)
    assert failure.message.startswith("/films/a.mp4: Read-only file system; ")


def test_another_attempt_may_find_room_on_a_disk_that_was_full(details: Path) -> None:
    assert told(StorageFull("no space left")) == Failure("no space left", 20, retryable=True)
    failure = told(OSError(errno.ENOSPC, "No space left on device", "/films/a.mp4"))
    assert (failure.exit_code, failure.retryable) == (20, True)
    assert failure.message.startswith("/films/a.mp4: No space left on device; ")
