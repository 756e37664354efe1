"""Job bundles of batches, read by the packages of Open Job Description and of AWS Deadline Cloud."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deadline.client.job_bundle import loader, parameters
from openjd.model import StepParameterSpaceIterator, create_job, decode_job_template

from gateway.studio.open_job import job_template, write_job_bundle
from services.common.errors import InvalidRequestError


@pytest.mark.parametrize("rows", [1, 2, 100_000])
def test_one_task_for_each_row(rows: int) -> None:
    template = decode_job_template(template=job_template("night", rows))
    job = create_job(job_template=template, job_parameter_values={})
    (step,) = job.steps
    tasks = StepParameterSpaceIterator(space=step.parameterSpace)
    assert len(tasks) == rows
    assert (tasks[0]["Row"].value, tasks[rows - 1]["Row"].value) == ("0", str(rows - 1))


def test_bundle_for_deadline_cloud(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bundle"
    for _ in range(2):
        write_job_bundle("night", 7, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["parameter_values.json", "template.json"]
    assert loader.is_job_bundle_dir(str(folder))
    values = {one["name"]: one.get("value", one.get("default")) for one in parameters.read_job_bundle_parameters(str(folder))}
    assert values == {
        "Batch": "night",
        "Command": "dubstage",
        "deadline:maxRetriesPerTask": 3,
        "deadline:maxFailedTasksCount": 7,
    }
    assert decode_job_template(template=json.loads((folder / "template.json").read_text())).name == "dubstage night"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequestError, match="file/bundle cannot be written"):
        write_job_bundle("night", 1, tmp_path / "file" / "bundle")
