"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.store.exported_network import write_whole
from tests.file_limit import files_of_at_most


def test_a_file_that_does_not_fit_leaves_the_earlier_file_and_no_part(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "network.onnx", b"earlier")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        write_whole(path, bytes(2000))
    assert [each.name for each in tmp_path.iterdir()] == ["network.onnx"]
    assert path.read_bytes() == b"earlier"
