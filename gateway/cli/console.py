"""Output of the command line: results go to stdout, all other lines go to stderr."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.cli.text import printable

# Markup is off, so that a name such as `[red]film.mp4` is printed unchanged. Coloured text is a `Text`.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


_WIDE: Final = 4096
"""Width of a table without a terminal, characters."""


def say(message: str) -> None:
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


def say_error(message: str) -> None:
    """Print one line to stderr that begins with `error:` in red."""
    err.print(Text.assemble(("error:", "bold red"), " ", printable(message)))


def say_warning(message: str) -> None:
    """Print one line to stderr that begins with `warning:` in yellow."""
    err.print(Text.assemble(("warning:", "yellow"), " ", printable(message)))
