"""A killed dub goes on where it was and gives the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.dubbing import ROOT, SPEECH, sha256

NO_ADAPTATION = "--no-personalize"


def start(footage: Path, output: Path, data: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_ARTEFACTS_URL": str(data / "artefacts")}
    command = [sys.executable, "-m", "gateway.cli", "dub", str(footage), "--audio", str(SPEECH), "-o", str(output), NO_ADAPTATION]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def windows_journalled(data: Path) -> int:
    """Finished steps in all jobs' journals; the enrolment is one of them."""
    return sum(1 for path in data.glob("jobs/*/journal/*") if not path.name.startswith("."))


@pytest.mark.timeout(400)
def test_killed_at_random_windows_and_run_again_the_bytes_are_the_same(carphone: Path, tmp_path: Path) -> None:
    whole = start(carphone, tmp_path / "whole.mp4", tmp_path / "data-whole")
    _, errors = whole.communicate(timeout=180)
    assert whole.returncode == 0, errors

    generator = random.Random(7)
    output, data = tmp_path / "killed.mp4", tmp_path / "data"
    kept = 0
    for steps in sorted(generator.sample(range(1, 5), 2)):
        process = start(carphone, output, data)
        while process.poll() is None and windows_journalled(data) < steps:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not output.exists() or process.returncode == 0
        kept = windows_journalled(data)

    last = start(carphone, output, data)
    _, errors = last.communicate(timeout=180)
    assert last.returncode == 0, errors
    assert sha256(output) == sha256(tmp_path / "whole.mp4")
    # The enrolment is a step too; every window that was journalled is taken, none is computed again.
    assert f"{max(0, kept - 1)} windows taken from an earlier run" in errors or kept <= 1
