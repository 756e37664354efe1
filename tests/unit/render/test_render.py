from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from services.common.errors import ArtefactCorrupt, InvalidRequest, ModelNotFound
from services.render.backends.base import Backend
from services.render.backends.onnxruntime_backend import OnnxRuntimeBackend
from services.render.backends.openvino_backend import OpenVinoBackend
from services.render.backends.registry import WEIGHTS_FOLDER, read_models
from services.render.models import RenderModels, load_models
from services.render.render import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, default_state, render
from services.render.types import Precision, RenderFrame


def _backends() -> list[Backend]:
    return [
        OnnxRuntimeBackend(device="cpu", precision=Precision.FLOAT32, num_threads=1),
        OpenVinoBackend(precision=Precision.FLOAT32, num_threads=1),
        OnnxRuntimeBackend(device="cpu", precision=Precision.INT8, num_threads=1),
    ]


@pytest.fixture(scope="module", params=_backends(), ids=lambda backend: f"{backend.name}-{backend.precision}")
def models(request: pytest.FixtureRequest) -> RenderModels:
    return load_models(WEIGHTS_FOLDER, request.param)


def test_outside_the_mask_the_box_is_the_background(models: RenderModels, frames: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    for frame, made in zip(frames, render(models.backend, file, frames, default_state(file)), strict=True):
        assert made.frame_index == frame.frame_index
        assert np.array_equal(made.mask, frame.mask)
        outside = frame.mask == 0
        assert np.array_equal(made.box[outside], frame.background[outside])


def test_batches_change_no_byte(models: RenderModels, frames: list[RenderFrame]) -> None:
    file = models.files["ugc"]
    state = np.random.default_rng(0).normal(0.0, 0.05, file.state_size).astype(np.float32)
    together = render(models.backend, file, frames, state)
    alone = [render(models.backend, file, [frame], state)[0] for frame in frames]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.box, other.box)


@pytest.mark.parametrize("name", ["ugc", "everybody", "headpose"])
def test_batches_of_several_actors_change_no_byte(models: RenderModels, name: str) -> None:
    inputs = json.loads((WEIGHTS_FOLDER / f"{name}.export.json").read_text(encoding="utf-8"))["inputs"]
    rng, count = np.random.default_rng(0), 24
    pictures = rng.integers(0, 256, (count, *inputs[INPUT_PICTURES][1][1:]), np.uint8)
    pictures = np.stack([cv2.GaussianBlur(picture, (0, 0), 3.0) for picture in pictures])
    states = rng.normal(0.0, 0.1, (count, inputs[INPUT_STATE][1][1])).astype(np.float32)

    def computed(size: int) -> np.ndarray:
        parts = [slice(begin, begin + size) for begin in range(0, count, size)]
        made = [models.backend.infer(name, {INPUT_PICTURES: pictures[part], INPUT_STATE: states[part]}) for part in parts]
        return np.concatenate([each[OUTPUT_RESIDUAL] for each in made])

    np.testing.assert_array_equal(computed(5), computed(1))


def test_what_the_mask_hides_has_no_influence(models: RenderModels, frames: list[RenderFrame]) -> None:
    file, frame = models.files["ugc"], frames[1]
    hidden = replace(frame, background=np.where(frame.mask[..., None] > 0, np.uint8(7), frame.background))
    (one,), (other,) = (render(models.backend, file, [given], default_state(file)) for given in (frame, hidden))
    assert np.array_equal(one.box, other.box)


def test_runtimes_agree(frames: list[RenderFrame]) -> None:
    boxes = []
    for backend in _backends():
        loaded = load_models(WEIGHTS_FOLDER, backend)
        boxes.append(render(backend, loaded.files["ugc"], frames[:1], default_state(loaded.files["ugc"]))[0].box)
    float_, openvino, int8 = boxes
    assert np.abs(float_.astype(int) - openvino).max() <= 1
    assert np.abs(float_.astype(int) - int8).mean() < 1.0


def test_a_state_of_another_length_is_refused(models: RenderModels, frames: list[RenderFrame]) -> None:
    with pytest.raises(InvalidRequest, match="has 3 numbers"):
        render(models.backend, models.files["ugc"], frames, np.zeros(3, np.float32))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS_FOLDER, folder)
    (folder / "ugc.onnx").write_bytes(b"something else")
    with pytest.raises(ArtefactCorrupt, match="is damaged"):
        read_models(folder, Precision.FLOAT32)


def test_missing_models_and_variants_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no exported model"):
        read_models(tmp_path, Precision.FLOAT32)
    sheet = {"name": "ugc", "files": {"float": {"path": "ugc.onnx", "sha256": "0"}}, "state_size": 1, "prior_sha256": ""}
    (tmp_path / "ugc.export.json").write_text(json.dumps(sheet))
    with pytest.raises(ModelNotFound, match="no file"):
        read_models(tmp_path, Precision.BFLOAT16)
    with pytest.raises(ModelNotFound, match="not exported in int8"):
        read_models(tmp_path, Precision.INT8)


def test_onnxruntime_refuses_bfloat16() -> None:
    with pytest.raises(InvalidRequest, match="use openvino"):
        OnnxRuntimeBackend(device="cpu", precision=Precision.BFLOAT16, num_threads=1)
