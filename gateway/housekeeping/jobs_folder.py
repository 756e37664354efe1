"""The folder of all jobs, below the data folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gateway.pipeline.disk import job_folder
from gateway.pipeline.workspace import JOBS
from gateway.private_files import cannot_use, data_folder


def open_jobs_folder(data_dir: Path) -> Path:
    """Make the folder of jobs (mode 0700) if it is missing, check that files can be written there, and return its path.

    Raises:
        StorageRefused: the data folder cannot be used; the message names the path and DUBSTAGE_DATA_DIR.
        StorageFull: no space is left there.
    """
    data_folder(data_dir)
    jobs = data_dir / JOBS
    try:
        with job_folder(jobs):
            jobs.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=jobs, prefix=".check-") as probe:
                probe.write(b"x")
                probe.flush()
    except OSError as problem:
        raise cannot_use(data_dir, problem) from problem
    return jobs
