"""`python -m gateway.cli.child MODULE`: run a server's module, and end the server when the parent process ends.

The parent process holds the other end of this process's stdin and never writes. When the parent ends for any reason, also when it
is killed, stdin ends.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the module named by the first argument as `__main__`."""
    module = sys.argv[1]
    sys.argv = [module]
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
