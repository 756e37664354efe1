"""A batch as a job of Open Job Description (github.com/OpenJobDescription), which AWS Deadline Cloud and `openjd run` run.

The job bundle is a folder with `template.json`, which has one task for each row, and `parameter_values.json`, which has settings of
Deadline Cloud alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gateway.batch.types import MAX_ATTEMPTS
from gateway.safe_paths import make_folder
from services.common.errors import InvalidRequestError
from services.common.files import write_whole

_STOP_S: Final = 60
"""Seconds that a worker has to put its shot back before it is killed."""


def job_template(name: str, rows: int) -> dict[str, Any]:
    """Return the template of a job (jobtemplate-2023-09) that dubs each row of a batch once.

    Args:
        name: name of the batch.
        rows: number of rows.

    The workers have the settings of the installation in their environment, such as `DUBSTAGE_DATABASE_URL`.
    """
    texts = {
        "Batch": (name, "Name of the batch."),
        "Command": ("dubstage", "Command of dubstage on the workers: a name or a path."),
    }
    return {
        "specificationVersion": "jobtemplate-2023-09",
        "name": f"dubstage {name}",
        "parameterDefinitions": [
            {"name": parameter, "type": "STRING", "default": value, "description": meaning}
            for parameter, (value, meaning) in texts.items()
        ],
        "steps": [
            {
                "name": "Dub",
                "parameterSpace": {"taskParameterDefinitions": [{"name": "Row", "type": "INT", "range": f"0-{rows - 1}"}]},
                "script": {
                    "actions": {
                        "onRun": {
                            "command": "{{Param.Command}}",
                            "args": ["batch", "run", "{{Param.Batch}}", "--index", "{{Task.Param.Row}}"],
                            "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": _STOP_S},
                        }
                    }
                },
            }
        ],
    }


def write_job_bundle(name: str, rows: int, folder: Path) -> None:
    """Write the job bundle of a batch. Files of an earlier bundle are replaced.

    Args:
        name, rows: as `job_template`.
        folder: folder of the bundle; it is made.

    Raises:
        InvalidRequestError: the folder cannot be written.
    """
    # A shot that failed for good fails at once when it is run again, and holds back no other shot.
    values = {"deadline:maxRetriesPerTask": MAX_ATTEMPTS, "deadline:maxFailedTasksCount": rows}
    parameters = {"parameterValues": [{"name": key, "value": value} for key, value in values.items()]}
    try:
        make_folder(folder)
        for file, content in (("parameter_values.json", parameters), ("template.json", job_template(name, rows))):
            write_whole(folder / file, f"{json.dumps(content, indent=2)}\n".encode())
    except (OSError, ValueError) as problem:
        reason = problem.strerror or str(problem) if isinstance(problem, OSError) else str(problem)
        raise InvalidRequestError(f"{folder} cannot be written: {reason}", field="output", named=True) from problem
