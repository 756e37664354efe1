"""Tests of the process of the command line: signals that cancel a command's work, and streams that the caller closed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import app
from gateway.cli.app import run_async
from services.common.errors import InvalidRequestError, WorkCancelledError

WAIT = """
import sys, tempfile, threading
from gateway.cli import app, main

app.register_commands = lambda _: None

@app.app.command("wait")
def wait() -> None:
    async def nothing() -> None:
        pass

    with tempfile.TemporaryDirectory() as folder:
        app.run_async(nothing())
        print(folder, flush=True)
        threading.Event().wait(60)

sys.argv = ["dubstage", "wait"]
main()
"""
IMPORTING = """
import sys
from gateway.cli import main

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "gateway.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
main()
"""
WRITE = """
import os, sys
from gateway.cli import app, main

app.register_commands = lambda _: None

@app.app.command("write")
def write(file: str) -> None:
    with open(file, "wb", buffering=0) as output:
        output.write(sys.stdin.read().encode())
        for stream in (sys.stdout, sys.stderr):
            print("a line of a stream", file=stream, flush=True)
        os.system("echo a line of another process >&2")

sys.argv = ["dubstage", "write", sys.argv[1]]
main()
"""


def test_sigterm_cleans_up() -> None:
    """SIGTERM lets a command clean up and ends it as interrupted."""
    with subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        folder = Path(process.stdout.readline().rstrip())
        assert folder.is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        assert process.stderr.read() == "error: interrupted\n"
    assert not folder.exists()


def test_ctrl_c_during_start() -> None:
    """Ctrl-C while the command starts is reported in one line."""
    ended = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (WorkCancelledError.exit_code, "error: interrupted\n")


@pytest.mark.parametrize("closed", ["<&-", "1>&-", "2>&-", "<&- 1>&- 2>&-", "0>/dev/null 1</dev/null 2</dev/null"])
def test_lines_for_a_closed_stream_go_nowhere(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "result"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" "$2" {closed}', sys.executable, WRITE, str(file)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    line, other = "a line of a stream\n", "a line of another process\n"
    assert (done.returncode, file.read_bytes()) == (0, b"")
    assert done.stdout == ("" if "1" in closed else line)
    assert done.stderr == ("" if "2" in closed else line + other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_command_which_cleans_up(number: signal.Signals) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            cleaned.append("partial file")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(WorkCancelledError, match="interrupted"):
            run_async(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert cleaned == ["partial file"]


def test_self_cancelled_work_is_no_interrupt() -> None:
    """Work that cancels itself is not reported as interrupted."""

    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_async(work())


def test_commands_of_research_without_research(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    for command in app.RESEARCH_COMMANDS:
        assert app.run([command, "--help"]) == InvalidRequestError.exit_code
        assert f"dubstage {command} needs the package dubstage-research" in " ".join(capsys.readouterr().err.split())


def test_list_of_commands_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that a module registers is in the help, and no other."""
    app.register_commands()
    registered = {one.name for one in app.app.registered_commands} | {one.name for one in app.app.registered_groups}
    assert registered >= set(app.COMMANDS)
    assert app.run(["--help"]) == 0
    listed = re.findall(r"^  (\w+) {2,}\S", capsys.readouterr().out.split("Videos:")[1], re.MULTILINE)
    assert tuple(listed) == app.COMMANDS


def test_list_of_commands_hides_research(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.run(["--help"]) == 0
    assert "trainset" not in capsys.readouterr().out
