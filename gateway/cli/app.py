"""The application of the command line: finds the command, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperGroup

from gateway.cli.console import say, say_error, say_result
from gateway.crash_report import machine_fault, write_traceback
from services.common.errors import DubstageError, InvalidRequestError, StorageRefusedError, UnexpectedError, WorkCancelledError
from services.common.server.resources import collections_paused, tune_allocator

_HELP: Final[Mapping[str, Mapping[str, str]]] = {
    "Videos": {
        "dub": "Give a video new speech.",
        "live": "Speak a sound file as an enrolled person, in real time.",
        "faces": "List the faces of a video.",
        "frames": "Make a video of an image sequence, and frames of its dub.",
        "plan": "Say what a dub, or a load of dubs, takes.",
        "inspect": "Say who made a video, and whether it was dubbed.",
        "watermark": "Publish whom to ask about this installation's watermarks.",
        "ui": "Dub in the browser.",
    },
    "People": {
        "actor": "Enrol people, and manage enrolled people.",
        "consent": "Write, sign, check and withdraw consent records.",
        "receipt": "Check receipts of erasures.",
        "audit": "List, export and check who did what with whose face.",
    },
    "Many videos": {
        "batch": "Dub the shots of a list or a timeline, review and deliver them.",
        "jobs": "List and remove files of failed and interrupted dubs.",
    },
    "Servers": {
        "serve": "Run a gateway or a stage.",
        "doctor": "Check this installation, and say what to do.",
        "database": "Upgrade the tables of a database.",
        "backup": "Write the database and its files to one file.",
        "restore": "Fill an empty installation from a backup.",
    },
    "Networks": {
        "evaluate": "Measure dubs against the real mouths of clips.",
        "trainset": "Make a training set from clips.",
        "train": "Train a network.",
        "export": "Export a trained network to ONNX.",
        "reproduce": "Repeat the evaluation of a paper.",
    },
}
"""Commands by their subject, each with a line of help. A command has a module of its name in this package or in research.cli."""
COMMANDS: Final = tuple(command for commands in _HELP.values() for command in commands)
"""Names of the commands."""
RESEARCH_COMMANDS: Final = tuple(_HELP["Networks"])
"""Commands for developers of networks. They are in research.cli, which an installation without dubstage-research does not have."""
_SUITE: Final = "dubstage-suite"
"""Distribution whose extras name the packages of each subject (pyproject.toml)."""
_EXTRA: Final = re.compile(r"""([\w.-]+)[^;]*;.*extra == ['"]([\w-]+)['"]""")
"""A requirement of an extra in the metadata of a distribution: name of the package, name of the extra."""
_LAST_EXTRAS: Final = ("test", "all")
"""Extras of developers, which no message recommends if another extra has the package."""
_USAGE_ERROR: Final = cast("type[Exception]", typer.BadParameter.__base__)
"""Base class of the errors for a wrong option, a missing argument and an unknown command."""


class _SubCommands(TyperGroup):
    """Commands of a group, listed with the whole first sentence of their help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class _Commands(TyperGroup):
    """The commands of `dubstage`. The list of commands is shown without the import of their modules, which takes seconds."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, by their subject."""
        for subject, commands in _HELP.items():
            if commands.keys() <= set(RESEARCH_COMMANDS) and find_spec("research") is None:
                continue
            with formatter.section(subject):
                formatter.write_dl([(f"{name:<8}", line) for name, line in commands.items()])


app = typer.Typer(
    name="dubstage",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Visual dubbing: new speech for real footage.",
)


def command_group(name: str, purpose: str) -> typer.Typer:
    """Add a group of commands to `app`, and return the group.

    Args:
        name: name of the group, one of COMMANDS.
        purpose: help of the group.
    """
    group = typer.Typer(cls=_SubCommands, no_args_is_help=True, help=purpose)
    app.add_typer(group, name=name)
    return group


def _show_version(wanted: bool) -> None:
    if wanted:
        say_result(f"dubstage {metadata.version(_SUITE)}")
        raise typer.Exit


@app.callback()
def _suite(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Visual dubbing: new speech for real footage."""


def _extras() -> Mapping[str, Sequence[str]]:
    """Return the packages of each extra, written as in `_normalised`. Empty: dubstage runs from files that are not installed."""
    found: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires(_SUITE) or ()
    except metadata.PackageNotFoundError:
        requirements = ()
    for requirement in requirements:
        if match := _EXTRA.match(requirement):
            found.setdefault(match[2], []).append(_normalised(match[1]))
    return {extra: found[extra] for extra in sorted(found, key=lambda extra: extra in _LAST_EXTRAS)}


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _missing_package(package: str, extra: str, subject: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{subject} needs the package {package} of the extra `{extra}`, which is not installed here: "
        f"{sys.executable} -m pip install '{_SUITE}[{extra}]'",
        field="installation",
    )


def _error_of_import(problem: ModuleNotFoundError) -> InvalidRequestError | None:
    """Return the error for a package of an extra that is not installed; None: no extra has the package."""
    package = _normalised((problem.name or "").partition(".")[0])
    return next(
        (_missing_package(package, extra, "this command") for extra, packages in _extras().items() if package in packages), None
    )


def require_extra(extra: str, subject: str) -> None:
    """Check that all packages of an extra are installed, so that a command does not fail after hours of work.

    Args:
        extra: name of an extra of dubstage-suite.
        subject: what needs the extra, for the message.

    Raises:
        InvalidRequestError: a package is missing; the message names the package, the extra and the command that installs the extra.
    """
    for package in _extras().get(extra, ()):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            raise _missing_package(package, extra, subject) from None


def register_commands(names: Iterable[str] = COMMANDS) -> None:
    """Import the modules of commands, which add the commands to `app`.

    Without research, its commands are left out of several commands.

    Raises:
        InvalidRequestError: the only command needs research, which is not installed.
    """
    chosen = tuple(names)
    for command in chosen:
        if command not in RESEARCH_COMMANDS:
            importlib.import_module(f"gateway.cli.{command}")
        elif find_spec("research") is not None:
            importlib.import_module(f"research.cli.{command}")
        elif len(chosen) == 1:
            raise InvalidRequestError(
                f"dubstage {command} needs the package dubstage-research, which is not installed here (see docs/training.md)",
                field="installation",
            )


def _called(arguments: Sequence[str]) -> Sequence[str]:
    """Return the commands that a command line needs. A word that is no command is compared with all commands."""
    if not arguments or arguments[0] in ("--help", "--version"):
        return ()
    return arguments[:1] if arguments[0] in COMMANDS else COMMANDS


@lru_cache(maxsize=1)
def _program(num_registered: int) -> Any:
    """Return the parser of all registered commands. A process that runs many command lines builds the parser once."""
    return typer.main.get_command(app)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does, so that a command cleans up. A second SIGTERM, after the
    first was noticed, ends the process at once: Python notices a signal between two steps of its own.
    """

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def run_async(job: Coroutine[Any, Any, None]) -> None:
    """Run a command's coroutine. Ctrl-C and SIGTERM cancel the coroutine and the work of its stages. No half-written file stays.

    A second SIGTERM ends the process at once.

    Raises:
        WorkCancelledError: the command was interrupted.
    """
    interrupted, before = False, signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end() -> None:
            nonlocal interrupted
            interrupted = True
            loop.remove_signal_handler(signal.SIGTERM)
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGTERM, end)
        await job

    try:
        with _log_on_stderr():
            asyncio.run(main())
    except KeyboardInterrupt:
        interrupted = True
    except asyncio.CancelledError:
        if not interrupted:
            raise
    finally:
        if not interrupted:
            signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise WorkCancelledError("interrupted: finished windows are kept; run the same command again to continue")


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Send the log lines of a command to stderr, those below `warning` only if DUBSTAGE_LOG_LEVEL asks for them.

    A command reports its work in sentences of its own. A log that is set up stays.
    """
    # Commands that log nothing start without these modules.
    import structlog

    from services.common.server.settings import StageSettings, load_settings

    if structlog.is_configured():
        yield
        return
    settings = load_settings(StageSettings, port=0)
    level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # `sys.stderr` of the moment: MediaPipe's start replaces it for a while.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


def run(arguments: list[str]) -> int:  # noqa: PLR0911 - one exit code for each kind of error
    """Run one command line and return the exit code."""
    tune_allocator()
    _quiet_libraries()
    try:
        with collections_paused():
            register_commands(_called(arguments))
        code = _program(len(app.registered_commands) + len(app.registered_groups))(arguments, standalone_mode=False)
        if code == WorkCancelledError.exit_code:  # typer ends a command that Ctrl-C interrupts with this code, and says nothing
            say_error("interrupted")
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, int | None) else UnexpectedError.exit_code
    except KeyboardInterrupt:
        say_error("interrupted")
        return WorkCancelledError.exit_code
    except DubstageError as error:
        say_error(error)
        return error.exit_code
    except _USAGE_ERROR as error:
        return _say_usage(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        missing = _error_of_import(error) if isinstance(error, ModuleNotFoundError) else None
        if missing is None:
            return _say_unexpected(error)
        say_error(missing)
        return missing.exit_code
    return code if isinstance(code, int) else 0


def _say_usage(error: Any) -> int:
    """Print a usage error, whose text may hold any character of the arguments, and return the exit code."""
    shown = io.StringIO()
    error.show(shown)
    for line in shown.getvalue().rstrip("\n").split("\n"):
        say(line)
    return int(error.exit_code)


def _say_unexpected(error: Exception) -> int:
    fault = machine_fault(error)
    if fault is not None:
        say_error(f"{fault}{_details()}")
        return StorageRefusedError.exit_code
    say_error(f"this should not happen, please report it{_details()}")
    return UnexpectedError.exit_code


def _details() -> str:
    """Write the current traceback to a file, or to stderr if no file can be written, and return a clause that says where."""
    name, text = write_traceback()
    if name:
        return f"; the details are in {name}"
    for line in text.splitlines():
        say(line)
    return "; the details are above"


def _quiet_libraries() -> None:
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
