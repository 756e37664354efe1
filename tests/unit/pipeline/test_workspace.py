"""Which folder a job works in while another process works in the job's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.pipeline.workspace import lock_folder, open_workspace
from services.common.errors import InvalidRequest

KEY = "0123456789abcdef" * 2
OPERATION = "operations/" + "ab" * 16


def test_an_operation_works_in_a_second_folder_while_another_process_works_in_the_first(tmp_path: Path) -> None:
    folder = tmp_path / KEY
    with open_workspace(folder, OPERATION) as alone:
        assert alone.folder == folder
        with open_workspace(folder, OPERATION) as second:
            # The name is that of a job, so that `dubstage jobs list` shows the folder.
            assert second.folder.parent == tmp_path
            assert len(second.folder.name) == len(KEY)
            assert second.folder != folder
        with open_workspace(folder, OPERATION.replace("ab", "cd")) as third:
            assert third.folder not in (folder, second.folder)
    with open_workspace(folder, OPERATION) as again:
        assert again.folder == folder


def test_a_job_of_the_command_line_has_one_folder(tmp_path: Path) -> None:
    lock_folder(tmp_path / KEY)
    with pytest.raises(InvalidRequest, match="the very same job is running already"):
        open_workspace(tmp_path / KEY)
