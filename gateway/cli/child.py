"""`python -m gateway.cli.child MODULE`: runs a server's module, and ends it when the process that started it is gone.

The parent holds the other end of this process's stdin and never writes: the end of stdin is the parent's end, however it came.
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
