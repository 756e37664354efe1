"""The command line `dubstage`."""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Final

_INTERRUPTED: Final = 130
"""Exit code of `services.common.errors.WorkCancelledError`, which is not imported yet."""


def main() -> None:
    """Run the command line and exit. A user's mistake ends with one clear line and an exit code, never with a traceback."""
    _open_closed_streams()
    try:
        from services.common.server.resources import collections_paused, skip_last_collection

        with collections_paused():
            from gateway.cli.app import interrupt_on_sigterm, run
    except KeyboardInterrupt:  # a user may press Ctrl-C during the imports
        sys.stderr.write("error: interrupted\n")
        sys.exit(_INTERRUPTED)

    interrupt_on_sigterm()
    code = run(sys.argv[1:])
    skip_last_collection()
    sys.exit(code)


def _open_closed_streams() -> None:
    """Open /dev/null in place of stdin, stdout and stderr if the caller closed them.

    Otherwise the next file that is opened gets the number of the closed stream, and lines for the stream go to that file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if not _serves(number):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            os.set_inheritable(number, True)
            if null != number:
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _serves(number: int) -> bool:
    """Return whether a standard stream can be read (0) or written (1, 2)."""
    try:
        access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return False
    # A shell that runs a script without stderr may leave the script's file at this number, open for reading.
    return access != (os.O_WRONLY if number == 0 else os.O_RDONLY)
