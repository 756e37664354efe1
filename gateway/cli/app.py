"""The commands, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from gateway.cli.console import say_error
from services.common.errors import Cancelled, DubstageError

app = typer.Typer(
    name="dubstage",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Visual dubbing: new speech for real footage.",
)


COMMANDS: Final = ("actor", "doctor", "dub", "evaluate", "live", "serve", "trainset")
"""Each has a module of its own in this package."""


@app.callback()
def _suite() -> None:
    """Visual dubbing: new speech for real footage."""


def register_commands(arguments: Sequence[str]) -> None:
    """Import the module of the command that is called, which adds itself to `app`; all of them where none is named."""
    named = arguments[0] if arguments else ""
    for command in (named,) if named in COMMANDS else COMMANDS:
        importlib.import_module(f"gateway.cli.{command}")


def run_async(job: Coroutine[Any, Any, None]) -> None:
    """Run a command's coroutine; Ctrl-C cancels it and its stages' work."""
    try:
        asyncio.run(job)
    except KeyboardInterrupt:
        raise Cancelled("interrupted; finished windows are kept, the same command goes on from there") from None


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    _quiet_libraries()
    register_commands(arguments)
    try:
        app(arguments)
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, int | None) else 1
    except DubstageError as error:
        say_error(error.message)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        say_error(f"this should not happen; the details are in {_write_crash()}")
        return 1
    return 0


def _write_crash() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="dubstage-error-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return Path(name)


def _quiet_libraries() -> None:
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
