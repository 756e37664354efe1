"""Tests of the process of the command line: signals that cancel a command's work, and streams that the caller closed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer

from gateway.cli import app
from gateway.cli.app import run_async
from gateway.cli.console import Verbosity, set_verbosity
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
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {closed}', sys.executable, WRITE, str(file)]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
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


def _commands(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    """All commands and groups, each with the words that call it."""
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, [*words, name])


def test_h_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    """-h prints the help of every command and group, as --help does."""
    app.register_commands()
    for words, _ in _commands(typer.main.get_command(app.app), []):
        printed = []
        for option in ("-h", "--help"):
            assert app.run([*words, option]) == 0, words
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1] != "", words
        assert printed[0].startswith(" ".join(["Usage: dubstage", *words])), words


def test_dub_help_after_second_argument(capsys: pytest.CaptureFixture[str]) -> None:
    """-h behind a second argument of `dub` prints the help, not an error about the argument."""
    assert app.run(["dub", "video.mp4", "speech.wav", "-h"]) == 0
    assert capsys.readouterr().out.startswith("Usage: dubstage dub")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dubstage a", ["actor", "audit"]),
        ("dubstage actor ", ["create", "list", "show", "erase"]),
        ("dubstage -q actor list --af", ["--after"]),
        ("dubstage --ver", ["--version", "--verbose"]),
    ],
)
def test_shell_completes(
    words: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell is offered commands, commands of a group, and options."""
    monkeypatch.setenv("_DUBSTAGE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert app.run([]) == 0
    assert capsys.readouterr().out.split() == offered


def test_module_runs_command_line(tmp_path: Path) -> None:
    """`python -m dubstage` is the command where the suite is installed, and says what to install where it is not."""
    started = [sys.executable, "-m", "dubstage", "--version"]
    suite = subprocess.run(started, capture_output=True, text=True, check=True)
    assert suite.stdout == f"dubstage {version('dubstage-suite')}\n"
    protos = Path(__file__).parents[3] / "protos"
    bare = {**os.environ, "PYTHONPATH": str(protos)}
    started.insert(1, "-S")
    client = subprocess.run(started, capture_output=True, text=True, check=False, env=bare, cwd=tmp_path)
    assert (client.returncode, client.stdout) == (10, "")
    assert client.stderr.startswith("error: only the client or single stages of dubstage are installed here")
    assert client.stderr.count("\n") == 1


def test_quiet_keeps_errors_and_result(capsys: pytest.CaptureFixture[str]) -> None:
    """With --quiet, a command prints its result and its errors, and no message."""
    assert app.run(["receipt", "key"]) == 0
    loud = capsys.readouterr()
    assert loud.err.startswith("key ")
    assert app.run(["-q", "receipt", "key"]) == 0
    assert capsys.readouterr() == (loud.out, "")
    assert app.run(["--quiet", "receipt", "verify", "missing"]) == 10
    assert capsys.readouterr().err.startswith("error: missing")
    assert app.run(["-q", "receipt", "verify"]) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """A user who gives both --quiet and --verbose gets an error."""
    assert app.run(["-q", "-v", "actor", "list"]) == 10
    assert capsys.readouterr().err == "error: give either --quiet or --verbose\n"


@pytest.mark.parametrize(
    ("verbosity", "level", "said"),
    [
        (Verbosity.NORMAL, "", 1),
        (Verbosity.QUIET, "", 0),
        (Verbosity.VERBOSE, "", 2),
        (Verbosity.VERBOSE, "warning", 1),
        (Verbosity.NORMAL, "info", 2),
        (Verbosity.NORMAL, "nonsense", 1),
    ],
)
def test_warnings_of_log_are_printed(
    verbosity: Verbosity, level: str, said: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings of the log are printed to stderr, all lines with --verbose, and none with --quiet, unless a setting chooses."""
    monkeypatch.setenv("DUBSTAGE_LOG_LEVEL", level)
    before = structlog.get_config()
    set_verbosity(verbosity)
    with app.log_on_stderr():
        log = structlog.stdlib.get_logger("test")
        log.info("frames_read")
        log.warning("frame_skipped")
    set_verbosity(Verbosity.NORMAL)
    printed = capsys.readouterr()
    assert (printed.err.count("frame"), printed.out) == (said, "")
    assert structlog.get_config() == before


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("nonsense", 2, "No such command 'nonsense'."),
        ("dub", 2, "Missing argument 'VIDEO'."),
        ("dub a.mp4 -o b.mp4 --seed x", 2, "Invalid value for '--seed'"),
        ("actor show nobody", 11, "no actor 'nobody'"),
    ],
)
def test_errors_begin_alike(line: str, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every error begins with `error: `, a mistyped option too."""
    assert app.run(line.split()) == code
    errors = [each for each in capsys.readouterr().err.splitlines() if each.lower().startswith("error")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {message}")


def test_values_of_options_are_words() -> None:
    """The help names the value of every option by a word, not by the type of a programming language."""
    for words, parameter in _parameters():
        flag = getattr(parameter, "is_flag", False)
        assert flag or parameter.metavar, (words, parameter.opts)


def test_options_have_names() -> None:
    """Every option begins with a letter behind its dashes, such as --device."""
    for words, parameter in _parameters():
        for option in (*parameter.opts, *parameter.secondary_opts) if parameter.param_type_name == "option" else ():
            assert re.match("--?[a-z]", option), (words, option)


def _parameters() -> list[tuple[list[str], Any]]:
    app.register_commands()
    commands = _commands(typer.main.get_command(app.app), [])
    return [(words, parameter) for words, command in commands for parameter in command.params]
