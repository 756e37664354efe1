"""Output of the command line: results go to stdout, all other lines go to stderr, and new files are written whole.

Text from outside (names of files, messages of libraries, arguments) is made safe for a terminal.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.common.errors import InvalidRequestError
from services.common.files import create_whole
from services.common.stderr import shown_stderr
from services.common.texts import Fact

_JOINERS: Final = "\u200c\u200d"
"""Zero-width joiners. Persian, Indic scripts and emoji need these characters, and a terminal shows them safely."""
# Markup is off, so that a name such as `[red]video.mp4` is printed unchanged. Coloured text is a `Text`.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
"""Messages and progress. With --quiet, this console prints nothing."""
_errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
"""Errors, which are printed with --quiet too."""
_WIDE: Final = 4096
"""Width of a table without a terminal, characters."""


class Verbosity(Enum):
    """Lines that a command prints besides its errors and its result."""

    QUIET = "quiet"
    """No line."""
    NORMAL = "normal"
    """Messages, warnings and progress, and warnings of the log."""
    VERBOSE = "verbose"
    """Messages, warnings, progress, and the lines of the log."""


@dataclass(slots=True)
class _Terminal:
    """Choices of the present command: which lines it prints, and whether stdout is kept for JSON."""

    verbosity: Verbosity = Verbosity.NORMAL
    json: bool = False


_terminal = _Terminal()


def set_verbosity(verbosity: Verbosity) -> None:
    """Choose what the commands of this process print from now on. Their results go to stdout, until `keep_stdout_for_json`."""
    _terminal.verbosity, _terminal.json = verbosity, False
    err.quiet = verbosity is Verbosity.QUIET


def is_verbose() -> bool:
    """Return whether the user asked for the lines of the log."""
    return _terminal.verbosity is Verbosity.VERBOSE


def is_quiet() -> bool:
    """Return whether the user asked for errors and the result only."""
    return _terminal.verbosity is Verbosity.QUIET


def keep_stdout_for_json(wanted: bool) -> bool:
    """Let stdout have nothing but the JSON document of the present command. Its results become messages on stderr.

    Args:
        wanted: value of the option --json, which is returned.
    """
    _terminal.json = wanted
    return wanted


def wants_json() -> bool:
    """Return whether the present command was given --json."""
    return _terminal.json


def printable(text: str | Fact) -> str:
    r"""Return `text` in one line, with a visible escape for each character that a terminal would act on or cannot show.

    A text that names options or commands, and an error, are written in the words of the command line.
    Control characters, line breaks and marks that change the direction of writing become escapes such as `\x1b`, `\n` and `\u202e`.
    A byte of a file name that is not UTF-8 becomes an escape such as `\xff`.
    """
    if isinstance(text, Fact):
        # Imported here: most commands print plain lines, and the words need the contracts.
        from gateway.cli.words import COMMAND_LINE

        text = text.in_words(COMMAND_LINE)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # Python's character for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def say(message: str | Fact) -> None:
    """Print one line to stderr, unless the user asked for no messages."""
    err.print(printable(message))


def say_to_quiet(message: str | Fact) -> None:
    """Print one line to stderr that belongs to an error, with --quiet too."""
    _print_seen(_for_errors(), printable(message))


def _for_errors() -> Console:
    # `err` knows a progress bar that is on the terminal, and prints above the bar.
    return _errors if err.quiet else err


def _print_seen(console: Console, line: str | Text) -> None:
    # A stage that still computes when its command fails may load MediaPipe, which silences the standard error.
    with shown_stderr():
        console.print(line)


def say_result(result: str) -> None:
    """Print one line to stdout; with --json, to stderr as a message."""
    (err if _terminal.json else out).print(printable(result))


def say_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document to stdout. The document is ASCII, so that no text in it acts on a terminal."""
    file = out.file
    file.write(f"{json.dumps(document, indent=2)}\n")
    file.flush()


def shown_path(path: str | Path) -> str:
    r"""Return the name of a file or folder for a JSON document. A byte that is not UTF-8 becomes an escape such as `\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def say_output(*paths: str | Path) -> None:
    """Print the files or folders that the command wrote.

    With --json, the document has the field `outputUri`, or `outputUris` if there are several.
    """
    for path in paths:
        say_result(str(path))
    if _terminal.json:
        names = [shown_path(path) for path in paths]
        say_json({"outputUri": names[0]} if len(names) == 1 else {"outputUris": names})


def say_table(table: Table) -> None:
    """Print a table to stdout as wide as the terminal; without a terminal, each row in one line. No cell is cut.

    With --json, the table goes to stderr.
    """
    console = err if _terminal.json else out
    for column in table.columns:
        column.overflow = "fold"
    wide = Console(file=console.file, width=_WIDE, highlight=False, markup=False, emoji=False, quiet=console.quiet)
    (console if console.is_terminal else wide).print(table)


def say_error(message: str | Fact) -> None:
    """Print one line to stderr that begins with `error:` in red, with --quiet too."""
    _print_seen(_for_errors(), Text.assemble(("error:", "bold red"), " ", printable(message)))


def say_warning(message: str | Fact, *, to_quiet: bool = False) -> None:
    """Print one line to stderr that begins with `warning:` in yellow; `to_quiet`: with --quiet too, because the command fails."""
    _print_seen(_for_errors() if to_quiet else err, Text.assemble(("warning:", "yellow"), " ", printable(message)))


def check_new_file(file: Path) -> None:
    """Check before any work that a file does not exist and that its folder does.

    Raises:
        InvalidRequestError: the file exists, or its folder does not.
    """
    if os.path.lexists(file):
        raise InvalidRequestError(f"{file} exists: give another name", field="output")
    if not file.parent.is_dir():
        raise InvalidRequestError(f"{file} cannot be written: there is no folder {file.parent}", field="output")


def write_new_file(file: Path, content: bytes) -> None:
    """Write a new file: under a temporary name first, so that no half-written file stays.

    Raises:
        InvalidRequestError: the file exists or cannot be written.
    """
    try:
        if create_whole(file, content):
            return
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be written: {problem.strerror or problem}", field="output") from problem
    raise InvalidRequestError(f"{file} exists: give another name", field="output")
