"""Command lines in processes of their own, forked from one process that has imported the command line already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path


def context() -> ForkServerContext:
    """Return the fork server of this process. It has the command line's modules, so that a new process needs no imports."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.preloaded"])
    return found


def redirect(stdout: Path, stderr: Path) -> None:
    """Let this process write what it says to files, and read nothing."""
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _child(arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, said: Path) -> None:
    redirect(said / "stdout", said / "stderr")
    # Ctrl-C, as in a terminal: a test run in the background hands an ignored signal on to its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["dubstage", *arguments]
    from gateway.cli.app import run

    code = 1
    try:
        code = run(list(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class ForkedProcess:
    """A process that is forked from the fork server.

    Args:
        target: function that the process calls, with `arguments`.
        arguments: what can be pickled.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self._process = context().Process(target=target, args=arguments)
        self._process.start()

    @property
    def exit_code(self) -> int | None:
        """Exit code, or the negative number of the signal that ended the process; None: the process runs."""
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process has not ended yet."""
        if self._process.pid is not None and self.exit_code is None:
            os.kill(self._process.pid, number)

    def wait(self, timeout: float) -> None:
        """Wait for the end, for so many seconds at most."""
        self._process.join(timeout)

    def kill(self) -> None:
        """End the process at once, and wait for the end."""
        self.send(signal.SIGKILL)
        self._process.join()


class Forked(ForkedProcess):
    """A command line that runs.

    Args:
        arguments: behind `dubstage`.
        environment: all variables of the process. Libraries that read variables when they are imported have the variables of the
            first caller.
        cwd: folder in which the process runs.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path) -> None:
        self._arguments = list(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="dubstage-said-")
        super().__init__(_child, self._arguments, dict(environment), cwd, Path(self._folder.name))

    @property
    def runs(self) -> bool:
        """Whether the process has not ended yet."""
        return self.exit_code is None

    def ended(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and return what `subprocess.run` would return.

        Args:
            timeout: seconds after which the process is killed.

        Raises:
            subprocess.TimeoutExpired: the process had not ended in time.
        """
        with self._folder as folder:
            self.wait(timeout)
            if self.exit_code is None:
                self.kill()
                raise subprocess.TimeoutExpired(self._arguments, timeout)
            stdout, stderr = (Path(folder, name).read_text(errors="replace") for name in ("stdout", "stderr"))
            return subprocess.CompletedProcess(self._arguments, self.exit_code, stdout, stderr)


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run one command line as `Forked` does, and wait for the end as `Forked.ended` does."""
    return Forked(arguments, environment, cwd=cwd).ended(timeout)
