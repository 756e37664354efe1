"""The variables that the chart gives for S3 open a real S3, and models come from there before a service starts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.charts.rendering import ROOT, Object, pod_spec, render
from tests.contract.stores.s3_servers import BUCKET, KEY, SECRET, S3Server, s3

__all__ = ["s3"]

FROM_THE_SECRET = {"id": KEY, "secret": SECRET}


def environment_of(container: Object, server: S3Server) -> dict[str, str]:
    """A container's variables as its process would see them: what Secrets hold, and this machine's server for the chart's."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DUBSTAGE_"))}
    for item in container["env"]:
        found[item["name"]] = item["value"] if "value" in item else FROM_THE_SECRET[item["valueFrom"]["secretKeyRef"]["key"]]
    assert found["AWS_ENDPOINT_URL"] == "https://minio.storage:9000"
    return {**found, "AWS_ENDPOINT_URL": server.endpoint}


def run(script: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_a_stage_keeps_artefacts_where_the_chart_says(s3: S3Server) -> None:
    container = render("everything", f"global.artefacts.s3.url=s3://{BUCKET}/chart").container("render")
    script = (
        "import os; from services.render.settings import RenderSettings; "
        "from services.common.store.artefacts import ArtefactStore; "
        "store = ArtefactStore(os.environ['DUBSTAGE_ARTEFACTS_URL']); print(store.get_bytes(store.put_bytes(b'picture')).decode())"
    )
    result = run(script, environment=environment_of(container, s3))
    assert result.stdout == "picture\n", result.stderr
    assert any(key.startswith("chart/") for key in s3.all_keys())


def test_models_are_fetched_with_their_folders(s3: S3Server, tmp_path: Path) -> None:
    for key, body in {"ppg.onnx": b"network", "silero/vad.onnx": b"activity"}.items():
        s3.client.put_object(Bucket=BUCKET, Key=f"models/audio/{key}", Body=body)
    deployment = render("everything", f"audio.models.url=s3://{BUCKET}/models/audio").deployment("audio")
    (fetch,) = pod_spec(deployment)["initContainers"]
    _, _, script, url = fetch["command"]
    assert {mount["name"]: mount["mountPath"] for mount in fetch["volumeMounts"]} == {"tmp": "/tmp", "models": "/models"}
    result = run(script.replace('"/models/"', repr(f"{tmp_path}/")), url, environment=environment_of(fetch, s3))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ppg.onnx").read_bytes() == b"network"
    assert (tmp_path / "silero" / "vad.onnx").read_bytes() == b"activity"


def test_stage_finds_mounted_models() -> None:
    rendered = render("everything")
    expected = {
        "audio": ("DUBSTAGE_AUDIO_WEIGHTS", "/models"),
        "face": ("DUBSTAGE_MORPHABLE_MODELS", "/models"),
        "motion": ("DUBSTAGE_MOTION_WEIGHTS", "/models"),
        "texture": ("DUBSTAGE_TEXTURE_WEIGHTS", "/models/temporal_warp.onnx"),
    }
    for stage, (variable, path) in expected.items():
        assert rendered.environment(stage)[variable] == path
        mounts: list[Any] = rendered.container(stage)["volumeMounts"]
        (mount,) = [item for item in mounts if item["name"] == "models"]
        assert (mount["mountPath"], mount["readOnly"]) == ("/models", True)
    assert "DUBSTAGE_RENDER_WEIGHTS" not in rendered.environment("render")
    file = expected["texture"][1].rpartition("/")[2]
    assert (ROOT / "services" / "texture" / "weights" / file).is_file()
