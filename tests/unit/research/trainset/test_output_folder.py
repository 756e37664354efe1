"""The files of a clip on a full disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.trainset.output_folder import ClipFiles
from services.common.files import FULL_DISK
from tests.file_limit import files_of_at_most


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A file for which the disk has no room leaves nothing."""
    files = ClipFiles(tmp_path, "00000", "one.wav")
    files.path("sound").parent.mkdir(parents=True)
    with files_of_at_most(1000), pytest.raises(OSError, match=r"\.partial|File too large") as caught:
        files.put("sound", {"samples": np.zeros(4000, np.int16)}, {})
    assert caught.value.errno in FULL_DISK
    assert list(files.path("sound").parent.iterdir()) == []


def test_rewritten_file_replaces_earlier(tmp_path: Path) -> None:
    """A file that is written again replaces the earlier one."""
    files = ClipFiles(tmp_path, "00000", "one.wav")
    files.path("sound").parent.mkdir(parents=True)
    for level in (1, 2):
        files.put("sound", {"samples": np.full(4, level, np.int16)}, {})
    assert files.get("sound", "samples")["samples"].tolist() == [2] * 4
    assert list(files.path("sound").parent.iterdir()) == [files.path("sound")]
