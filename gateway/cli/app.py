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
from typing import Annotated, Any, Final, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

from gateway.cli.console import Verbosity, is_quiet, is_verbose, say_error, say_result, say_to_quiet, set_verbosity
from gateway.crash_report import machine_fault, write_traceback
from services.common.errors import DubstageError, InvalidRequestError, StorageRefusedError, UnexpectedError, WorkCancelledError
from services.common.server.resources import collections_paused, tune_allocator

T = TypeVar("T")
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
        "consent": "Write, sign, verify and withdraw consent records.",
        "receipt": "Check receipts of erasures.",
        "audit": "List, export and check who did what with whose face.",
    },
    "Many videos": {
        "batch": "Dub the shots of a list or a timeline, review and deliver them.",
        "jobs": "List and remove files of failed and interrupted dubs, and kept analyses.",
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
HELP_OPTIONS: Final = ("--help", "-h")
"""Options that print the help of a command or of a group."""
RESEARCH_COMMANDS: Final = tuple(_HELP["Networks"])
"""Commands for developers of networks. They are in research.cli, which an installation without dubstage-research does not have."""
_SUITE: Final = "dubstage-suite"
"""Distribution whose extras name the packages of each subject (pyproject.toml)."""
_EXTRA: Final = re.compile(r"""([\w.-]+)[^;]*;.*extra == ['"]([\w-]+)['"]""")
"""A requirement of an extra in the metadata of a distribution: name of the package, name of the extra."""
_LAST_EXTRAS: Final = ("test", "all")
"""Extras of developers, which no message recommends if another extra has the package."""
_PREFIX: Final = "DUBSTAGE_"
"""Beginning of the settings in the environment."""
_USAGE_ERROR: Final = cast("type[Exception]", typer.BadParameter.__base__)
"""Base class of the errors for a wrong option, a missing argument and an unknown command."""


def _is_installed(command: str) -> bool:
    """Return whether the distribution of a command is installed."""
    return command not in RESEARCH_COMMANDS or find_spec("research") is not None


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
            if not all(map(_is_installed, commands)):
                continue
            with formatter.section(subject):
                formatter.write_dl([(f"{name:<8}", line) for name, line in commands.items()])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the commands and options that a shell offers for the beginning of a word, without an import of the commands."""
        lines = {name: line for commands in _HELP.values() for name, line in commands.items() if _is_installed(name)}
        registered, self.commands = self.commands, {name: TyperCommand(name, short_help=line) for name, line in lines.items()}
        try:
            return list(super().shell_complete(ctx, incomplete))
        finally:
            self.commands = registered

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command. For a shell that completes a word behind the command, the command's module is imported here."""
        if ctx.resilient_parsing and cmd_name not in self.commands and cmd_name in COMMANDS and _is_installed(cmd_name):
            register_commands((cmd_name,))
            return cast("_Commands", typer.main.get_command(app)).commands[cmd_name]
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="dubstage",
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": list(HELP_OPTIONS)},
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
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors and the result only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print the lines of the log too.")] = False,
) -> None:
    """Visual dubbing: new speech for real footage."""
    if quiet and verbose:
        raise InvalidRequestError("give either --quiet or --verbose", field="quiet")
    set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else Verbosity.NORMAL)


def _extras() -> Mapping[str, Sequence[str]]:
    """Return the packages of each extra, written as in `_normalised`. Empty: dubstage runs from files that are not installed."""
    packages: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires(_SUITE) or ()
    except metadata.PackageNotFoundError:
        requirements = ()
    for requirement in requirements:
        if match := _EXTRA.match(requirement):
            packages.setdefault(match[2], []).append(_normalised(match[1]))
    return {extra: packages[extra] for extra in sorted(packages, key=lambda extra: extra in _LAST_EXTRAS)}


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
        elif _is_installed(command):
            importlib.import_module(f"research.cli.{command}")
        elif len(chosen) == 1:
            raise InvalidRequestError(
                f"dubstage {command} needs the package dubstage-research, which is not installed here (see docs/training.md)",
                field="installation",
            )


def _called(arguments: Sequence[str]) -> Sequence[str]:
    """Return the commands that a command line needs. A word that is no command is compared with all commands."""
    # All options before the command are flags.
    command = next((index for index, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    if command == len(arguments) or not {*HELP_OPTIONS, "--version"}.isdisjoint(arguments[:command]):
        return ()
    return (arguments[command],) if arguments[command] in COMMANDS else COMMANDS


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


def run_async(job: Coroutine[Any, Any, T]) -> T:
    """Return the result of a command's coroutine. Ctrl-C and SIGTERM cancel the coroutine and the work of its stages. No
    half-written file stays.

    A second SIGTERM ends the process at once.

    Raises:
        WorkCancelledError: the command was interrupted.
    """
    interrupted, before = False, signal.getsignal(signal.SIGTERM)

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end() -> None:
            nonlocal interrupted
            interrupted = True
            loop.remove_signal_handler(signal.SIGTERM)
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGTERM, end)
        return await job

    try:
        with log_on_stderr():
            result = asyncio.run(main())
    except KeyboardInterrupt:
        interrupted = True
    except asyncio.CancelledError:
        if not interrupted:
            raise
    finally:
        if not interrupted:
            signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise WorkCancelledError("interrupted: finished work is kept; run the same command again to continue")
    return result


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Send the log lines of a command to stderr, from the level of `_log_level` on. Afterwards the log is as before.

    `run_async` does this. A command that starts stages otherwise has this as a decorator. Other commands start without structlog.
    """
    from services.common.stderr import log_lines_on_stderr

    with log_lines_on_stderr(_log_level()):
        yield


def _log_level() -> str:
    """Return the lowest level of the lines that a command prints: the setting, `info` with --verbose, nothing with --quiet.

    Warnings are printed otherwise: some facts, such as a file of a person that could not be removed, are in the log alone.
    """
    from services.common.server.settings import StageSettings, load_settings

    default = "critical" if is_quiet() else "warning"
    try:
        settings = load_settings(StageSettings, port=0)
    except InvalidRequestError:  # a command that reads the settings reports this
        return default
    return settings.log_level if is_verbose() or "log_level" in settings.model_fields_set else default


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo at the end what options have set in the environment, so that the next command of this process does not inherit it."""
    before = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(_PREFIX) and name not in before]:
            del os.environ[name]
        os.environ.update(before)


def run(arguments: list[str]) -> int:
    """Run one command line and return the exit code. The next command of this process inherits no option of this one."""
    with _environment_kept():
        try:
            return _run(arguments)
        finally:
            set_verbosity(Verbosity.NORMAL)


def _run(arguments: list[str]) -> int:  # noqa: PLR0911 - one exit code for each kind of error
    tune_allocator()
    _quiet_libraries()
    try:
        with collections_paused():
            register_commands(_called(arguments))
        program = _program(len(app.registered_commands) + len(app.registered_groups))
        code = program(arguments, prog_name="dubstage", standalone_mode=False)
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
    # Typer writes `Error: ` before the message, and no user's text before it. All errors of dubstage begin with `error: `.
    head, _, message = f"\n{shown.getvalue().rstrip()}".partition("\nError: ")
    for line in head.splitlines()[1:]:
        say_to_quiet(line)
    first, *more = message.split("\n")
    if first:
        say_error(first)
    for line in more:
        say_to_quiet(line)
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
        say_to_quiet(line)
    return "; the details are above"


def _quiet_libraries() -> None:
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
