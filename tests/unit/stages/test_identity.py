from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.settings import GatewaySettings
from gateway.stages.identity import stages_sha256
from gateway.stages.opening import weights_of


def test_identity_by_networks_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest stays until a network, a stage's setting or the face model changes."""
    settings = GatewaySettings(data_dir=tmp_path)
    before = stages_sha256(settings)
    assert stages_sha256(settings) == before
    weights = shutil.copytree(weights_of("motion"), tmp_path / "weights")
    monkeypatch.setenv("DUBSTAGE_MOTION_WEIGHTS", str(weights))
    moved = stages_sha256(settings)
    with (weights / "lag.safetensors").open("r+b") as file:
        file.write(b"\1")
    changed = stages_sha256(settings)
    monkeypatch.setenv("DUBSTAGE_COMPUTE_THREADS", "3")
    threads = stages_sha256(settings)
    faces = stages_sha256(settings.model_copy(update={"face_model": "flame"}))
    assert len({before, moved, changed, threads, faces}) == 5


def test_identity_by_the_file_of_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that names one file counts by the content of the file."""
    settings = GatewaySettings(data_dir=tmp_path)
    network = tmp_path / "warp.onnx"
    monkeypatch.setenv("DUBSTAGE_TEXTURE_WEIGHTS", str(network))
    found = set()
    for content in (b"one", b"two"):
        network.write_bytes(content)
        found.add(stages_sha256(settings))
    assert len(found) == 2


@pytest.mark.parametrize("names", [{"DUBSTAGE_RENDER_ENDPOINT": "localhost:1"}, {"DUBSTAGE_BACKEND": "triton"}])
def test_other_processes_have_no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert stages_sha256(GatewaySettings(data_dir=tmp_path)) == ""
