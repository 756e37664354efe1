"""Standard error that a thread silences while another thread prints an error."""

from __future__ import annotations

import io
import os
import sys
import threading
from contextlib import ExitStack, redirect_stderr

import pytest

from gateway.cli.console import say_error
from services.common.stderr import quiet_stderr


def test_start_up_notes_are_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing that C++ code or Python writes to the standard error inside the block is shown; later writes are."""
    with quiet_stderr():
        os.write(2, b"note of C++\n")
        print("note of Python", file=sys.stderr)
    os.write(2, b"later\n")
    print("last", file=sys.stderr)
    assert capfd.readouterr().err == "later\nlast\n"


def test_stderr_of_another_thread_is_not_brought_back() -> None:
    """Where another thread's redirection of sys.stderr ends inside the block, sys.stderr is usable afterwards."""
    before = sys.stderr
    with ExitStack() as block, io.StringIO() as other, redirect_stderr(other):
        block.enter_context(quiet_stderr())
        other_ended = block.pop_all()
    other_ended.close()
    assert sys.stderr is before


def test_error_waits_for_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """An error that is printed while another thread silences the standard error is shown when the silence is over."""
    printing = threading.Thread(target=say_error, args=("the disk is full",))
    with quiet_stderr():
        printing.start()
        printing.join(0.2)
        assert printing.is_alive()
    printing.join(10)
    assert capfd.readouterr().err == "error: the disk is full\n"
