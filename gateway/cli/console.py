"""Output of the command line: results go to stdout, all other lines go to stderr, and new files are written whole.

Text from outside (names of files, messages of libraries, arguments) is made safe for a terminal.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.common.errors import InvalidRequestError
from services.common.files import create_whole
from services.common.texts import Fact

_JOINERS: Final = "\u200c\u200d"
"""Zero-width joiners. Persian, Indic scripts and emoji need these characters, and a terminal shows them safely."""
# Markup is off, so that a name such as `[red]video.mp4` is printed unchanged. Coloured text is a `Text`.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
_WIDE: Final = 4096
"""Width of a table without a terminal, characters."""


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
    """Print one line to stderr."""
    err.print(printable(message))


def say_result(result: str) -> None:
    """Print one line to stdout."""
    out.print(printable(result))


def say_table(table: Table) -> None:
    """Print a table to stdout as wide as the terminal; without a terminal, each row in one line. No cell is cut."""
    for column in table.columns:
        column.overflow = "fold"
    wide = Console(file=out.file, width=_WIDE, highlight=False, markup=False, emoji=False)
    (out if out.is_terminal else wide).print(table)


def say_error(message: str | Fact) -> None:
    """Print one line to stderr that begins with `error:` in red."""
    err.print(Text.assemble(("error:", "bold red"), " ", printable(message)))


def say_warning(message: str | Fact) -> None:
    """Print one line to stderr that begins with `warning:` in yellow."""
    err.print(Text.assemble(("warning:", "yellow"), " ", printable(message)))


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
