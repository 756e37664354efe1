"""Command lines of the tools of training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from services.common.errors import DubstageError

P = ParamSpec("P")


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option --data."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Training set, made by `dubstage trainset`.")
    return parser


def command_line(main: Callable[P, int]) -> Callable[P, int]:
    """Return a main function that answers a DubstageError with one line on stderr and the error's exit code."""

    @wraps(main)
    def answered(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except DubstageError as error:
            print(f"error: {error.message}", file=sys.stderr)
            return error.exit_code

    return answered
