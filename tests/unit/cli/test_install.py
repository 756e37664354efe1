"""`make install`: the command is on the user's PATH, and files that dubstage did not install are not replaced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def make(target: str, prefix: Path, environment: Path) -> subprocess.CompletedProcess[str]:
    # --old-file: make does not build the environment again. The tests run in this environment.
    command = ["make", "--silent", target, f"PREFIX={prefix}", f"VENV={environment}", f"--old-file={environment}/.ready"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def environment() -> Path:
    if not (Path(sys.prefix) / "bin" / "dubstage").is_file():
        pytest.skip("dubstage is not installed in this environment")
    return Path(sys.prefix)


def test_the_command_runs_by_its_link(tmp_path: Path, environment: Path) -> None:
    for _ in range(2):
        done = make("install", tmp_path / "a prefix", environment)
        assert done.returncode == 0, done.stderr
    assert "is not in your PATH" in done.stdout
    link = tmp_path / "a prefix" / "bin" / "dubstage"
    assert link.is_symlink()
    shown = subprocess.run([str(link), "--version"], capture_output=True, text=True, timeout=300, check=True)
    assert shown.stdout.startswith("dubstage ")


def test_foreign_file_is_kept(tmp_path: Path, environment: Path) -> None:
    """A file that dubstage did not install is kept."""
    other = tmp_path / "bin" / "dubstage"
    other.parent.mkdir()
    other.write_text("mine")
    done = make("install", tmp_path, environment)
    assert done.returncode != 0
    assert "choose another PREFIX" in done.stderr
    assert other.read_text() == "mine"
