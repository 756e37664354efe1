from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from pydantic import ValidationError
from tritonclient.grpc import model_config_pb2

from services.common.errors import BackendUnavailableError, InvalidRequestError, ModelNotFoundError
from services.common.files import file_sha256
from services.render.backends.model_files import WEIGHTS_FOLDER, read_models
from services.render.settings import RenderSettings
from services.render.triton.installation import find
from services.render.triton.repository import MODEL_FILE, RepositorySpec, main, write_repository
from services.render.types import Precision


def config_of(repository: Path) -> Any:
    """Parsed by Triton's own message: an unknown or misspelled field fails."""
    return text_format.Parse((repository / "ugc" / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def files_of(repository: Path) -> set[str]:
    return {str(path.relative_to(repository)) for path in (repository / "ugc").rglob("*") if path.is_file()}


def test_the_configuration_says_what_the_export_says(tmp_path: Path) -> None:
    folders = write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec(num_threads=2, instances=3, queue_delay_us=700))
    assert folders == [tmp_path / name for name in ("everybody", "everyone", "headpose", "hetero", "ugc")]
    folder = folders[-1]
    config = config_of(tmp_path)
    facts = json.loads((WEIGHTS_FOLDER / "ugc.export.json").read_text(encoding="utf-8"))
    assert (config.name, config.backend, config.max_batch_size) == ("ugc", "python", 16)
    assert {one.name: list(one.dims) for one in config.input} == {name: form[1][1:] for name, form in facts["inputs"].items()}
    assert {one.name: list(one.dims) for one in config.output} == {name: form[1][1:] for name, form in facts["outputs"].items()}
    assert config.dynamic_batching.max_queue_delay_microseconds == 700
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (3, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert set(config.model_warmup[0].inputs) == {"pictures", "actor_state"}
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert parameters["sha256.1"] == facts["files"]["int8"]["sha256"] == file_sha256(folder / "1" / "model.onnx")
    assert (parameters["precision"], parameters["num_threads"], parameters["runtime"]) == ("int8", "2", "onnxruntime")
    assert files_of(tmp_path) == {"ugc/config.pbtxt", "ugc/1/model.onnx", "ugc/1/model.py"}
    assert (folder / "1" / "model.py").read_bytes() == MODEL_FILE.read_bytes()


def test_gpu_differs_in_the_device_alone(tmp_path: Path) -> None:
    """The repository of a GPU has the files and the backend that the tests run on processors."""
    for device in ("cpu", "cuda"):
        write_repository(tmp_path / device, WEIGHTS_FOLDER, RepositorySpec(device=device, precision=Precision.FLOAT32))
    plain, config = config_of(tmp_path / "cpu"), config_of(tmp_path / "cuda")
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert config.parameters["device"].string_value == "cuda"
    config.instance_group[0].kind = plain.instance_group[0].kind
    config.parameters["device"].string_value = "cpu"
    assert config == plain
    assert files_of(tmp_path / "cuda") == files_of(tmp_path / "cpu")


def test_the_same_network_again_is_the_same_version(tmp_path: Path) -> None:
    write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec())
    write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec(num_threads=4))
    assert list(config_of(tmp_path).version_policy.specific.versions) == [1]
    assert config_of(tmp_path).parameters["num_threads"].string_value == "4"


def test_other_network_new_version(tmp_path: Path) -> None:
    """Another network is a new version and the one before stays."""
    write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec())
    write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec(precision=Precision.FLOAT32))
    config = config_of(tmp_path)
    assert list(config.version_policy.specific.versions) == [2]
    assert config.parameters["sha256.1"].string_value == file_sha256(WEIGHTS_FOLDER / "ugc.int8.onnx")
    assert config.parameters["sha256.2"].string_value == file_sha256(WEIGHTS_FOLDER / "ugc.onnx")
    (tmp_path / "ugc" / "2" / "model.py").write_text("# an older file\n", encoding="utf-8")
    write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec(precision=Precision.FLOAT32))
    config = config_of(tmp_path)
    assert list(config.version_policy.specific.versions) == [3]
    assert "sha256.1" not in config.parameters
    assert not (tmp_path / "ugc" / "1").exists()


def test_failed_write_keeps_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the repository as it was."""
    write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec())
    before = files_of(tmp_path), config_of(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec(precision=Precision.FLOAT32))
    assert (files_of(tmp_path), config_of(tmp_path)) == before


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"precision": Precision.BFLOAT16}, "bfloat16"),
        ({"device": "cuda", "precision": Precision.INT8}, "--triton-device cuda computes in float32, not in int8"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"instances": 0}, "instances must be at least 1"),
        ({"queue_delay_us": -1}, "queue_delay_us must not be negative"),
    ],
)
def test_what_triton_cannot_do_is_refused(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        RepositorySpec(**spec)


def test_a_batch_beyond_the_exports_is_refused(tmp_path: Path) -> None:
    most = read_models(WEIGHTS_FOLDER, Precision.INT8)["ugc"].max_batch_size
    with pytest.raises(InvalidRequestError, match=f"batches up to {most}"):
        write_repository(tmp_path, WEIGHTS_FOLDER, RepositorySpec(max_batch_size=most + 1))


def test_settings_per_backend_precision() -> None:
    """Settings take Triton alone and others with their precision."""
    options = RenderSettings(backend="triton", triton_url="model-server:8001", batch_size=6).triton_options()
    assert options is not None
    assert (options.url, options.max_frames) == ("model-server:8001", 6)
    assert RenderSettings().triton_options() is None
    with pytest.raises(ValidationError, match="together"):
        RenderSettings(backend="openvino")


def test_missing_server_tells_remedy(tmp_path: Path) -> None:
    """A missing server is reported with the command that installs it."""
    with pytest.raises(
        BackendUnavailableError, match=r"no tritonserver in .*: python -m services\.render\.triton\.installation --home"
    ):
        find(tmp_path)


def test_broken_environment_tells_remedy(tmp_path: Path) -> None:
    """An environment whose Python was removed from the machine is reported with what to do."""
    (tmp_path / ".ready").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "removed")
    with pytest.raises(BackendUnavailableError, match=r"does not run: .*: remove its environment and install it again"):
        find(tmp_path)


def test_command_refuses_files_as_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["repository", str(tmp_path / "file" / "models")])
    assert main() == InvalidRequestError.exit_code
    assert "models cannot be written: " in capsys.readouterr().err


def test_command_prints_written_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["repository", str(tmp_path)])
    assert main() == 0
    assert {Path(line).name for line in capsys.readouterr().out.split()} == {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "ugc" / "config.pbtxt").is_file()


def test_command_refuses_folder_without_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["repository", str(tmp_path / "out"), "--weights", str(tmp_path)])
    assert main() == ModelNotFoundError.exit_code
    assert "no exported model" in capsys.readouterr().err
