"""What the command line writes to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from gateway.cli.text import printable

# Without markup: a name such as `[red]film.mp4` is printed as it is. What has a colour is a `Text`.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(message: str) -> None:
    """Print one line to stderr."""
    err.print(printable(message))


def say_result(result: str) -> None:
    """Print one line to stdout."""
    out.print(printable(result))


def say_error(message: str) -> None:
    """Print one line to stderr, its head in red."""
    err.print(Text.assemble(("error:", "bold red"), " ", printable(message)))


def say_warning(message: str) -> None:
    """Print one line to stderr, its head in yellow."""
    err.print(Text.assemble(("warning:", "yellow"), " ", printable(message)))
