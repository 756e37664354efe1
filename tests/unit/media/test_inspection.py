from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from gateway.dub.choices import MOST_LINES
from gateway.media import inspection, inspection_child
from gateway.media.inspection import inspect_sound, inspect_video
from gateway.media.wire import unpack
from services.common.errors import ContractBrokenError
from tests.unit.media.made_footage import make_clip


def test_python_exception_is_own_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of Python in the process that reads a file is a fault of this program, and not of the file."""

    def fail(path: Path) -> None:
        raise AttributeError(f"no attribute of {path.name}")

    monkeypatch.setattr("gateway.media.probe.probe", fail)
    handle = os.open(make_clip(tmp_path / "clip.mp4"), os.O_RDONLY)
    answer = inspection_child._answer("video", handle)
    os.close(handle)
    assert unpack(answer)[0]["failed"].startswith("AttributeError: no attribute of")
    (tmp_path / "answer").write_bytes(answer)
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\n")
    program.chmod(0o755)
    monkeypatch.setattr("gateway.media.inspection.sys.executable", str(program))
    with pytest.raises(ContractBrokenError, match=r"clip\.mp4 .*: AttributeError"):
        inspect_video(tmp_path / "clip.mp4")


def test_inspection_imports_no_opencv(carphone: Path) -> None:
    """OpenCV would double the time that the process needs to start."""
    show = (
        "import sys; from gateway.media.inspection_child import _answer; handle = open(sys.argv[1], 'rb')\n"
        "_answer('video', handle.fileno()); print('cv2' in sys.modules, 'av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", show, str(carphone)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_sounds_of_scene_are_read_once(clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second check of a scene's sound files starts no process, whatever was inspected in between."""
    assert inspection._REMEMBERED > MOST_LINES
    monkeypatch.setattr(inspection, "_SETTLED_S", 0.0)
    files = [Path(shutil.copy(clips.path("audio/hp_5_00006.wav"), tmp_path / f"{number}.wav")) for number in range(10)]
    found = [inspect_sound(file) for file in files]
    monkeypatch.setattr("gateway.media.inspection.sys.executable", str(tmp_path / "nothing"))
    assert [inspect_sound(file) for file in files] == found


def test_least_recent_answers_are_forgotten(clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is asked for stays, and large answers leave no room for many."""
    monkeypatch.setattr(inspection, "_SETTLED_S", 0.0)
    monkeypatch.setattr(inspection, "_answers", OrderedDict())
    first, second, third = (
        Path(shutil.copy(clips.path("audio/hp_5_00006.wav"), tmp_path / f"{number}.wav")) for number in range(3)
    )
    inspect_sound(first)
    (size,) = map(len, inspection._answers.values())
    monkeypatch.setattr(inspection, "_REMEMBERED_BYTES", 2 * size)
    for file in (second, first, third):
        inspect_sound(file)
    monkeypatch.setattr("gateway.media.inspection.sys.executable", str(tmp_path / "nothing"))
    inspect_sound(first)
    with pytest.raises(FileNotFoundError):
        inspect_sound(second)
