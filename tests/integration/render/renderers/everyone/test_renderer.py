"""The committed prior of `everyone` holds nobody: without an actor's texture and reference picture it draws no face."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from research.methods.everyone.render import SPEC
from research.render.export import ExportJob, export_network
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MouthBank
from services.common.face.neural_texture import TEXTURE_SHAPE
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, WEIGHTS_FOLDER, ModelFile
from services.render.backends.onnxruntime import OnnxRuntimeBackend
from services.render.pairs import NO_NOISE
from services.render.renderer import with_face, without_dots
from services.render.renderers.everyone.network import WEIGHTS
from services.render.renderers.everyone.personalize import WindowConditions, bank_texture, pair_of, window_example
from services.render.renderers.everyone.renderer import packed, with_filmed_border, with_smooth_chroma
from services.render.streams import RenderModels, default_state, load_models, open_stream
from services.render.types import Precision, RenderedFrame, RenderFrame
from tests.refusals import raised
from tests.unit.render.conftest import small_weights
from tests.unit.render.renderers.everyone.person import CONFIG, shown_frames, surface, write_weights
from tests.unit.render.rendering import committed_models, render

__all__ = ["small_weights"]
Model = tuple[OnnxRuntimeBackend, ModelFile]
GREY = np.full(TEXTURE_SHAPE, 128, np.uint8)


@pytest.fixture(scope="module")
def model(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_weights(small_weights, tmp_path_factory.mktemp("everyone") / "weights")
    export_network(SPEC, ExportJob(weights=folder / "everyone.safetensors", folder=folder))
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


def test_a_stream_in_pieces_has_the_same_bytes(model: Model, frames, state) -> None:
    backend, file = model
    whole = render(backend, file, frames, state)
    assert [one.frame_index for one in whole] == list(range(8))
    for size in (1, 3):
        stream = open_stream(backend, file, state)
        made = [one for begin in range(0, 8, size) for one in stream.render(frames[begin : begin + size])]
        made += stream.finish()
        assert [one.box.tobytes() for one in made] == [one.box.tobytes() for one in whole]


def test_training_and_serving_inputs_equal(model: Model, bank, frames, texture, state) -> None:
    """Training and serving show the network the same picture."""
    backend, file = model
    served = render(backend, file, frames[2:5], state)[1]
    speech = frames[3].speech_features
    assert speech is not None
    pair = pair_of(window_example(bank, 3, surface(), WindowConditions(bank.boxes[20], speech, NO_NOISE, 0)), texture)
    residual = backend.infer(file.name, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: state[None, : -160 * 160 * 3]})
    face = pair.picture[..., 3:6] + residual[OUTPUT_RESIDUAL][0]
    drawn = with_face(frames[3], with_smooth_chroma(without_dots(face)))
    features = frames[3].neural_features
    expected = with_filmed_border(drawn, bank.boxes[3], features.any(axis=-1))
    # Landmarks that were disturbed by nothing have other last bits.
    assert np.abs(served.box.astype(int) - expected).mean() < 0.05


@pytest.mark.parametrize("name", ["neural_features", "speech_features"])
def test_missing_or_misshapen_features_are_named(model: Model, frames, state, name) -> None:
    with raised(InvalidRequestError, match=rf"frame\.{name} is missing", field=f"frame.{name}"):
        render(*model, [replace(frames[0], **{name: None})], state)
    with pytest.raises(InvalidRequestError, match=rf"frame\.{name}: expected shape \[.*\], got \[2, 3\]"):
        render(*model, [replace(frames[0], **{name: np.zeros((2, 3), np.float32)})], state)


def test_what_changes_the_picture(model: Model, frames, state) -> None:
    """Frames after and speech change the picture; outside the mask the footage stays."""
    first = render(*model, frames[:2], state)[0].box
    silent = replace(frames[0], speech_features=np.zeros((20, 40), np.float32))
    assert not np.array_equal(render(*model, [silent, frames[1]], state)[0].box, first)
    assert not np.array_equal(render(*model, [frames[0], replace(frames[5], frame_index=1)], state)[0].box, first)
    for one, frame in zip(render(*model, frames[:2], state), frames[:2], strict=True):
        assert np.array_equal(one.box[frame.mask == 0], frame.background[frame.mask == 0])
        assert not np.array_equal(one.box, frame.background)


@pytest.fixture(scope="module", params=["onnxruntime-float32", "onnxruntime-int8"])
def models(request: pytest.FixtureRequest) -> RenderModels:
    return committed_models(request.param)


@pytest.fixture(scope="module")
def clip(bank: MouthBank, mask: UInt8) -> list[RenderFrame]:
    return shown_frames(bank, mask, GREY, 6)


def drawn(models: RenderModels, *chunks: list[RenderFrame]) -> list[RenderedFrame]:
    model = models.files["everyone"]
    stream = open_stream(models.backend, model, default_state(model))
    return [*(made for chunk in chunks for made in stream.render(chunk)), *stream.finish()]


def test_a_grey_texture_draws_no_face(models: RenderModels, clip: list[RenderFrame], mask: UInt8) -> None:
    inside = mask == 255
    for made in drawn(models, clip):
        filmed = clip[made.frame_index].background[inside].astype(float)
        assert made.box[inside].astype(float).std(axis=0).max() < 0.5 * filmed.std(axis=0).max()
        assert np.array_equal(made.box[mask == 0], clip[made.frame_index].background[mask == 0])


def test_chunks_and_start_same_bytes(models: RenderModels, clip: list[RenderFrame]) -> None:
    """Neither the chunks nor the start of a stream change a byte."""
    whole = [made.box.tobytes() for made in drawn(models, clip)]
    assert whole == [made.box.tobytes() for made in drawn(models, clip[:1], clip[1:3], clip[3:])]
    assert whole[2:5] == [made.box.tobytes() for made in drawn(models, clip[1:])][1:4]


def test_weights_hold_no_texture() -> None:
    arrays = load_file(WEIGHTS_FOLDER / WEIGHTS)
    assert max(array.size for array in arrays.values()) < np.prod(TEXTURE_SHAPE) / 8
