"""The command line `dubstage`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit. A user's mistake ends with one clear line and an exit code, never with a traceback."""
    from gateway.cli.app import run
    from services.common.chassis.memory import skip_last_collection

    code = run(sys.argv[1:])
    skip_last_collection()
    sys.exit(code)
