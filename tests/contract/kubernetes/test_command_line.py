"""The commands of a person against the API, and the command of a pod as the kubelet would start it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.batch.store import BatchStore
from gateway.batch.types import ShotState
from gateway.cli.app import run
from services.common.server.settings import DATABASE_FILE
from tests.contract.kubernetes.conftest import config_map
from tests.contract.kubernetes.job_api import JobApi
from tests.unit.batch.rows import read_manifest

JOB = "dubstage-shots-0-0"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dubstage(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process. Returns exit code, stdout and stderr."""

    def run_it(*arguments: str, **variables: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            code = run(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


def as_a_pod(dubstage: Command, job: dict[str, Any], index: int) -> int:
    """Run the command of a Job's pod. As the kubelet does, the index is put into the arguments."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == "/opt/dubstage/bin/dubstage"
    arguments = [text.replace("$(JOB_COMPLETION_INDEX)", str(index)) for text in container["args"]]
    variables = {item["name"]: item["value"] for item in container["env"] if item["name"] != "HOME" and "value" in item}
    return dubstage(*arguments, **variables)[0]


@pytest.fixture
def manifest(api: JobApi, store: BatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four rows with footage that is no video, on a volume that the pods mount too."""
    plates = tmp_path / "plates"
    plates.mkdir()
    (plates / "a.mp4").write_bytes(b"no video")
    (plates / "de.wav").write_bytes(b"no sound")
    mount = {"name": "plates", "mountPath": str(plates)}
    database = f"sqlite:///{tmp_path}/data/{DATABASE_FILE}"
    env = [{"name": "DUBSTAGE_DATA_DIR", "value": str(tmp_path / "data")}, {"name": "DUBSTAGE_DATABASE_URL", "value": database}]
    api.put("configmaps", config_map(volume_mounts=[mount], volumes=[{"name": "plates", "emptyDir": {}}], env=env))
    monkeypatch.setenv("DUBSTAGE_DATABASE_URL", database)
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", str(tmp_path / "artefacts"))
    rows = [{"id": f"sh{row}", "footage": "a.mp4", "speech": "de.wav", "output": f"out{row}.mp4"} for row in range(4)]
    path = plates / "shots.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_batch_life_on_cluster(api: JobApi, store: BatchStore, manifest: Path, dubstage: Command) -> None:
    """A batch is sent, worked on by pods, cancelled and retried."""
    sent = dubstage("batch", "submit", str(manifest), "--engine", "kubernetes", "--workers", "2")
    assert sent[:2] == (0, f"{JOB}\n"), sent
    assert api.job(JOB)["spec"]["parallelism"] == 2

    assert as_a_pod(dubstage, api.job(JOB), 1) == 10
    assert store.record("shots", "sh1").state is ShotState.FAILED

    assert dubstage("batch", "cancel", "shots", "sh2")[0] == 0
    assert as_a_pod(dubstage, api.job(JOB), 2) == 0
    assert store.record("shots", "sh2").state is ShotState.CANCELLED

    api.finish(JOB, completed="2", failed="0-1,3")
    assert dubstage("batch", "watch", "shots")[0] != 0
    assert [record.state.value for record in store.records("shots")] == ["failed", "failed", "cancelled", "failed"]

    assert dubstage("batch", "retry", "shots", "sh1", "sh3", "--workers", "1")[:2] == (0, "dubstage-shots-1-0\n")
    assert api.job("dubstage-shots-1-0")["spec"]["parallelism"] == 1
    # Index 1 of the new Job is row 3.
    assert as_a_pod(dubstage, api.job("dubstage-shots-1-0"), 1) == 10
    assert [record.state.value for record in store.records("shots")] == ["failed", "waiting", "cancelled", "failed"]


def test_missing_permission_exit_code(api: JobApi, manifest: Path, dubstage: Command) -> None:
    api.refused["create", "jobs"] = (403, 'User "me" cannot create resource "jobs"')
    code, _, said = dubstage("batch", "submit", str(manifest), "--engine", "kubernetes")
    assert code == 11
    assert "verbs: [create]" in said
    assert "Traceback" not in said


def test_corrected_manifest_same_name(api: JobApi, store: BatchStore, manifest: Path, dubstage: Command, tmp_path: Path) -> None:
    """A manifest that pods cannot read is corrected under the same name."""
    rows = manifest.read_text(encoding="utf-8")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    manifest.write_text(rows.replace('"a.mp4"', f'"{tmp_path}/a.mp4"', 1), encoding="utf-8")
    code, _, said = dubstage("batch", "submit", str(manifest), "--engine", "kubernetes")
    assert (code, "row 1 (sh0): footage" in said) == (10, True), said
    assert store.find("shots") is None

    manifest.write_text(rows, encoding="utf-8")
    assert dubstage("batch", "submit", str(manifest), "--engine", "kubernetes")[:2] == (0, f"{JOB}\n")


def test_unsent_batch_cancelled_and_removed(api: JobApi, store: BatchStore, manifest: Path, dubstage: Command) -> None:
    """A batch that never reached a cluster is cancelled and removed."""
    store.create(read_manifest(manifest), "kubernetes")
    api.silent = True
    assert dubstage("batch", "cancel", "shots")[0] == 0
    assert dubstage("batch", "remove", "shots")[0] == 0
    assert store.find("shots") is None
