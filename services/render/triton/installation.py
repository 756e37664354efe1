"""A tritonserver without a GPU, from PyPI: `python -m services.render.triton.installation` prepares `.triton` in the checkout.

The package nvidia-pytriton carries NVIDIA's server with its Python backend. The server gets a virtual environment of its own: the
Python backend needs older packages than dubstage (requirements.txt). Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.errors import BackendUnavailableError

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
DEFAULT_HOME: Final = Path(__file__).parents[3] / ".triton"
"""Folder of the installation, beside `.venv` of the checkout."""

_LIBRARY_FOLDERS: Final = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib", "/usr/lib")
_ASK_PYTHON: Final = (
    "import sys, sysconfig, pathlib; v = 'python%d.%d' % sys.version_info[:2];"
    "print(v, sysconfig.get_path('purelib'), sysconfig.get_config_var('LIBDIR') or '', sep='\\n')"
)


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """Paths that a server needs to start.

    Attributes:
        binary: path of tritonserver.
        backends: folder of backends; the Python backend has its stub.
        bin: folder of the interpreter that models run in; comes first in PATH.
        libraries: folders for LD_LIBRARY_PATH.
    """

    binary: Path
    backends: Path
    bin: Path
    libraries: tuple[Path, ...]


def install(home: Path = DEFAULT_HOME) -> TritonInstallation:
    """Create the environment if it is missing or outdated; return the installation.

    Raises:
        BackendUnavailableError: pip failed, or this machine has no libpython.
    """
    mark = home / ".ready"
    expected = hashlib.sha256(REQUIREMENTS.read_bytes() + Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
    if not mark.is_file() or mark.read_text(encoding="ascii").strip() != expected:
        mark.unlink(missing_ok=True)
        _run(sys.executable, "-m", "venv", str(home))
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(REQUIREMENTS))
        version, packages, _ = _ask(home)
        server = packages / "pytriton" / "tritonserver"
        stub = server / "python_backend_stubs" / version.removeprefix("python") / "triton_python_backend_stub"
        # The stub is replaced in one step: a server that runs meanwhile keeps the stub that it has open.
        partial = server / "backends" / "python" / ".partial"
        shutil.copy(stub, partial)
        partial.replace(partial.with_name(stub.name))
        # Triton takes bytecode beside a model.py for a change of the model. The stub ignores PYTHONDONTWRITEBYTECODE.
        (packages / "no_bytecode.pth").write_text("import sys; sys.dont_write_bytecode = True\n", encoding="ascii")
        mark.write_text(expected + "\n", encoding="ascii")
    return find(home)


def find(home: Path = DEFAULT_HOME) -> TritonInstallation:
    """Return the installation in a folder.

    Raises:
        BackendUnavailableError: the folder holds no installation, or this machine has no libpython.
    """
    if not (home / ".ready").is_file():
        raise BackendUnavailableError(f"no tritonserver in {home}: python -m services.render.triton.installation --home {home}")
    version, packages, library_folder = _ask(home)
    server = packages / "pytriton" / "tritonserver"
    libraries = (packages / "nvidia_pytriton.libs", _folder_of_libpython(version, library_folder))
    return TritonInstallation(server / "bin" / "tritonserver", server / "backends", home / "bin", libraries)


def _folder_of_libpython(version: str, own: Path | None) -> Path:
    """Return the folder of the interpreter's shared library, against which the stub is linked."""
    name = f"lib{version}.so.1.0"
    for folder in ([own] if own is not None else []) + [Path(folder) for folder in _LIBRARY_FOLDERS]:
        if (folder / name).is_file():
            return folder
    raise BackendUnavailableError(
        f"{name} is not on this machine, and Triton's Python backend is linked against it: apt-get install lib{version} "
        f"(Debian, Ubuntu), or a Python that was built with --enable-shared"
    )


def _ask(home: Path) -> tuple[str, Path, Path | None]:
    """Return name (`python3.11`), folder of packages and folder of the library of the environment's interpreter.

    Raises:
        BackendUnavailableError: the interpreter does not run, such as after the Python that made the environment was removed.
    """
    answer = _run(str(home / "bin" / "python"), "-c", _ASK_PYTHON)
    version, packages, libraries = answer.split("\n")[:3]
    return version, Path(packages), Path(libraries) if libraries else None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise BackendUnavailableError(f"{command[0]} does not run: {error}: remove its environment and install it again") from error
    if done.returncode != 0:
        # venv writes its errors to stdout.
        raise BackendUnavailableError(f"{' '.join(command)} failed: {(done.stderr.strip() or done.stdout.strip())[-600:]}")
    return done.stdout


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.render.triton.installation", description=__doc__)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME, help="folder of the environment")
    try:
        print(install(parser.parse_args().home).binary)
    except BackendUnavailableError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
