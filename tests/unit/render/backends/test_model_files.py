from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from services.common.errors import ArtefactCorruptError, ModelNotFoundError
from services.render.backends.base import BackendName
from services.render.backends.model_files import WEIGHTS_DIGEST, WEIGHTS_FOLDER, TensorForm, read_models, tensor_forms
from services.render.streams import RenderModels, make_backend
from services.render.types import Precision


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the weights that come with dubstage."""
    return Path(shutil.copytree(WEIGHTS_FOLDER, tmp_path / "weights"))


def test_a_damaged_file_is_refused(folder: Path) -> None:
    (folder / "ugc.onnx").write_bytes(b"something else")
    with pytest.raises(ArtefactCorruptError, match="is damaged"):
        read_models(folder, Precision.FLOAT32)


def test_damaged_weights_refused_in_float32(folder: Path) -> None:
    """A damaged weights file is refused in float32 only."""
    (folder / "ugc.safetensors").write_bytes(b"something else")
    with pytest.raises(ArtefactCorruptError, match=r"ugc\.safetensors is damaged"):
        read_models(folder, Precision.FLOAT32)
    assert read_models(folder, Precision.INT8)["ugc"].weights is None


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("file", ["ugc.onnx", "ugc.safetensors"])
def test_replaced_file_refused_at_load(folder: Path, backend: BackendName, file: str) -> None:
    """A file that is replaced after the check is refused as a damaged one when the network is loaded."""
    runtime = make_backend(device="cpu", backend=backend, precision=Precision.FLOAT32, num_threads=1)
    models = RenderModels(folder, runtime)
    shutil.copyfile(folder / file.replace("ugc", "hetero"), folder / file)
    with pytest.raises(ArtefactCorruptError, match=rf"{file} is damaged"):
        models.load("ugc")
    shutil.copyfile(WEIGHTS_FOLDER / file, folder / file)
    models.load("ugc")
    assert not models.is_late("ugc")


def test_replaced_int8_network_refused(folder: Path) -> None:
    """The bytes that are loaded are those that are compared."""
    model = read_models(folder, Precision.INT8)["ugc"]
    assert model.content() == model.path.read_bytes()
    shutil.copyfile(folder / "hetero.int8.onnx", model.path)
    with pytest.raises(ArtefactCorruptError, match=r"ugc\.int8\.onnx is damaged"):
        model.content()
    model.path.unlink()
    with pytest.raises(ModelNotFoundError, match=r"no file .*ugc\.int8\.onnx"):
        model.content()


@pytest.mark.parametrize("name", ["everybody", "everyone", "headpose", "hetero", "ugc"])
def test_large_tensors_in_weights_file(name: str) -> None:
    """Large tensors lie in the weights file that the network states."""
    file = read_models(WEIGHTS_FOLDER, Precision.FLOAT32)[name]
    model = onnx.load(file.path, load_external_data=False)
    held = [tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
    assert sum(len(tensor.raw_data) for tensor in held) < 64 * 1024
    assert {entry.key: entry.value for entry in model.metadata_props} == {WEIGHTS_DIGEST: file.prior_sha256}


def test_missing_models_and_variants_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no exported model"):
        read_models(tmp_path, Precision.FLOAT32)
    sheet = {"name": "ugc", "files": {"float": {"path": "ugc.onnx", "sha256": "0"}}, "state_size": 1, "prior_sha256": ""}
    (tmp_path / "ugc.export.json").write_text(json.dumps(sheet))
    with pytest.raises(ModelNotFoundError, match="no file"):
        read_models(tmp_path, Precision.BFLOAT16)
    with pytest.raises(ModelNotFoundError, match="in int8"):
        read_models(tmp_path, Precision.INT8)


def test_inputs_and_outputs_match_sheet() -> None:
    """A model has the inputs and outputs of its sheet."""
    model = read_models(WEIGHTS_FOLDER, Precision.FLOAT32)["ugc"]
    assert model.inputs == (
        TensorForm("pictures", "uint8", (160, 160, 9)),
        TensorForm("actor_state", "float32", (3480,)),
    )
    assert model.outputs == (TensorForm("residual", "float32", (160, 160, 3)),)
    assert (model.box_size, model.box_multiple, model.max_batch_size) == (160, 1, 64)
    assert model.input_shape("actor_state") == (3480,)
    assert model.input_shape("speech_features") is None


@pytest.mark.parametrize("shape", [[], [256, 256, 16], [-1, 256]])
def test_shape_without_batch_refused(shape: list[int], folder: Path) -> None:
    """Every input has one row per frame."""
    with pytest.raises(ValueError, match="'texture'"):
        tensor_forms({"texture": ["float32", shape]})
    sheet = folder / "ugc.export.json"
    facts = json.loads(sheet.read_text(encoding="utf-8"))
    facts["inputs"]["texture"] = ["float32", shape]
    sheet.write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(ArtefactCorruptError, match="first axis must be 'batch'"):
        read_models(folder, Precision.FLOAT32)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"picture": ["float32", ["batch", 160, 320, 3]]},
        {"picture": ["float32", ["batch", 200, 200, 3]]},
        {"picture": ["float32", ["batch", 0, 0, 3]]},
        {"numbers": ["float32", ["batch", 160]]},
    ],
)
def test_sheet_without_picture_refused(folder: Path, outputs: dict[str, object]) -> None:
    """A sheet without a picture of a render box is refused."""
    sheet = folder / "ugc.export.json"
    facts = json.loads(sheet.read_text(encoding="utf-8"))
    sheet.write_text(json.dumps({**facts, "outputs": outputs}), encoding="utf-8")
    with pytest.raises(ArtefactCorruptError, match="square picture of 160 pixels"):
        read_models(folder, Precision.FLOAT32)
