"""A server in a process of its own, forked from one process that has imported all servers already."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from tests.forked import ForkedProcess


def _child(module: str, environment: Mapping[str, str], log: Path) -> None:
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(said, number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module]
    code = 1
    try:
        code = import_module(f"{module}.__main__").main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class ServerProcess(ForkedProcess):
    """A server that runs as `python -m MODULE` does, without the seconds that the imports take.

    Args:
        module: such as `services.face` or `gateway`.
        environment: all variables of the process.
        log: file that gets what the server says, behind what is in the file already.
    """

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        super().__init__(_child, module, dict(environment), log)

    def ended(self, timeout: float) -> int:
        """Wait for the end, and return the exit code.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: the process had not ended in time.
        """
        self.wait(timeout)
        if self.exit_code is None:
            raise TimeoutError(f"the server runs on after {timeout:g} s")
        return self.exit_code
