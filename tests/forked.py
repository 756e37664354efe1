"""Command lines in processes of their own, forked from one process that has imported the command line already."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], *, cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run one command line, as `subprocess.run` would.

    Args:
        arguments: behind `dubstage`.
        environment: all variables of the process. Libraries that read variables when they are imported have the variables of the
            first caller.
        cwd: folder in which the process runs.
        timeout: seconds after which the process is killed.

    Raises:
        subprocess.TimeoutExpired: the process had not ended in time.
    """
    with tempfile.TemporaryDirectory(prefix="dubstage-said-") as folder:
        said = Path(folder)
        process = context().Process(target=_child, args=(list(arguments), dict(environment), cwd, said))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        stdout, stderr = ((said / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(list(arguments), process.exitcode, stdout, stderr)
