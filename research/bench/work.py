"""Parts that the benchmark commands share: the options that name the footage, a folder to work in, and a line of progress."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """Give a folder for films and logs.

    Args:
        keep: the folder, which stays; None: a new folder that is removed at the end.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with TemporaryDirectory(prefix="dubstage-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def footage_parser(prog: str, description: str | None) -> ArgumentParser:
    """Return a parser with the options that name the footage: `--clip` and `--speech`."""
    parser = ArgumentParser(prog=prog, description=description)
    parser.add_argument("--clip", type=Path, default=None, help="footage with one face")
    parser.add_argument("--speech", type=Path, default=None, help="speech of the films; without it, the clip's own")
    return parser


def tell(text: str) -> None:
    """Print progress on the error stream."""
    print(text, file=sys.stderr, flush=True)
