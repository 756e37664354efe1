"""Python programs in processes of their own, which find the modules of this one."""

import os
import subprocess
import sys
from typing import Any


def begun(script: str, *arguments: str, environment: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
    """Start a program whose output can be read."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})}
    streams = {"stdout": subprocess.PIPE, **more}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=own, text=True, **streams)


def said_by(script: str) -> str:
    """Run a program to its end, and return its output."""
    with begun(script) as process:
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    return said
