"""The command line `dubstage`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: runs the command; a user's mistake ends with one clear line and an exit code, never a traceback."""
    from gateway.cli.app import run

    sys.exit(run(sys.argv[1:]))
