from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequest
from services.common.face.mouth_bank import MouthBank
from services.render.backends.onnxruntime_backend import OnnxRuntimeBackend
from services.render.backends.registry import ModelFile
from services.render.drawer import with_face, without_dots
from services.render.models import load_models
from services.render.pairs import NO_NOISE
from services.render.renderer import ExportJob
from services.render.renderers.everyone.actor_footage import bank_texture
from services.render.renderers.everyone.actor_state import packed
from services.render.renderers.everyone.border import with_filmed_border
from services.render.renderers.everyone.chroma import with_smooth_chroma
from services.render.renderers.everyone.export import export_everyone
from services.render.renderers.everyone.pairs import Look, pair_of, seen_window
from services.render.streams import open_stream
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.types import Precision, RenderFrame
from tests.unit.render.conftest import small_weights
from tests.unit.render.renderers.everyone.person import CONFIG, shown_frames, surface, write_weights
from tests.unit.render.rendering import render

__all__ = ["small_weights"]


@pytest.fixture(scope="module")
def model(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxRuntimeBackend, ModelFile]:
    folder = write_weights(small_weights, tmp_path_factory.mktemp("everyone") / "weights")
    export_everyone(ExportJob(weights=folder / "everyone.safetensors", folder=folder))
    backend = OnnxRuntimeBackend(device="cpu", precision=Precision.FLOAT32, num_threads=1)
    return backend, load_models(folder, backend).files["everyone"]


@pytest.fixture(scope="module")
def texture(bank: MouthBank) -> UInt8:
    return bank_texture(bank, surface(), 0)


@pytest.fixture(scope="module")
def frames(bank: MouthBank, mask: UInt8, texture: UInt8) -> list[RenderFrame]:
    return shown_frames(bank, mask, texture, 8)


@pytest.fixture(scope="module")
def state(bank: MouthBank) -> Float32:
    style = np.linspace(-1.0, 1.0, CONFIG.face_size + CONFIG.audio_size, dtype=np.float32)
    return packed(style, bank.boxes[20])


def test_a_stream_in_pieces_has_the_same_bytes(
    model: tuple[OnnxRuntimeBackend, ModelFile], frames: list[RenderFrame], state: Float32
) -> None:
    backend, file = model
    whole = render(backend, file, frames, state)
    assert [one.frame_index for one in whole] == list(range(8))
    for size in (1, 3):
        stream = open_stream(backend, file, state)
        made = [one for begin in range(0, 8, size) for one in stream.render(frames[begin : begin + size])]
        made += stream.finish()
        assert [one.box.tobytes() for one in made] == [one.box.tobytes() for one in whole]


def test_training_and_serving_show_the_network_the_same_picture(
    model: tuple[OnnxRuntimeBackend, ModelFile], bank: MouthBank, frames: list[RenderFrame], texture: UInt8, state: Float32
) -> None:
    backend, file = model
    served = render(backend, file, frames[2:5], state)[1]
    speech = frames[3].speech_features
    assert speech is not None
    pair = pair_of(seen_window(bank, 3, surface(), Look(bank.boxes[20], speech, NO_NOISE, 0)), texture)
    residual = backend.infer(file.name, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: state[None, : -160 * 160 * 3]})
    face = pair.picture[..., 3:6] + residual[OUTPUT_RESIDUAL][0]
    drawn = with_face(frames[3], with_smooth_chroma(without_dots(face)))
    features = frames[3].neural_features
    assert features is not None
    expected = with_filmed_border(drawn, bank.boxes[3], features.any(axis=-1))
    # Landmarks that were disturbed by nothing have other last bits.
    assert np.abs(served.box.astype(int) - expected).mean() < 0.05


@pytest.mark.parametrize("name", ["neural_features", "speech_features"])
def test_missing_or_misshapen_features_are_named(
    model: tuple[OnnxRuntimeBackend, ModelFile], frames: list[RenderFrame], state: Float32, name: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"frame\.{name} is missing") as caught:
        render(*model, [replace(frames[0], **{name: None})], state)
    assert caught.value.field == f"frame.{name}"
    with pytest.raises(InvalidRequest, match=rf"frame\.{name}: expected shape \[.*\], got \[2, 3\]"):
        render(*model, [replace(frames[0], **{name: np.zeros((2, 3), np.float32)})], state)


def test_frames_after_and_speech_change_the_picture(
    model: tuple[OnnxRuntimeBackend, ModelFile], frames: list[RenderFrame], state: Float32
) -> None:
    first = render(*model, frames[:2], state)[0].box
    silent = replace(frames[0], speech_features=np.zeros((20, 40), np.float32))
    assert not np.array_equal(render(*model, [silent, frames[1]], state)[0].box, first)
    assert not np.array_equal(render(*model, [frames[0], replace(frames[5], frame_index=1)], state)[0].box, first)


def test_outside_the_mask_the_footage_stays(
    model: tuple[OnnxRuntimeBackend, ModelFile], frames: list[RenderFrame], state: Float32
) -> None:
    for one, frame in zip(render(*model, frames[:2], state), frames[:2], strict=True):
        assert np.array_equal(one.box[frame.mask == 0], frame.background[frame.mask == 0])
        assert not np.array_equal(one.box, frame.background)
