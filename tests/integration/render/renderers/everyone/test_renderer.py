"""The committed prior of `everyone` holds nobody: without an actor's texture and reference picture it draws no face."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from research.methods.everyone.render import SPEC, pair_of
from research.render.export import ExportJob, export_network
from research.render.models import load_models
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.face.neural_texture import TEXTURE_SHAPE
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, WEIGHTS_FOLDER, ModelFile
from services.render.backends.onnxruntime import OnnxRuntimeBackend
from services.render.pairs import NO_NOISE
from services.render.renderer import PersonalizeJob, with_face, without_dots
from services.render.renderers.everyone.network import WEIGHTS, load
from services.render.renderers.everyone.personalize import (
    TextureRecipe,
    TextureSearch,
    WindowConditions,
    actor_windows,
    bank_texture,
    personalize_everyone,
    window_example,
)
from services.render.renderers.everyone.renderer import packed, reference_row, unpacked, with_filmed_border, with_smooth_chroma
from services.render.streams import RenderModels, default_state, open_stream
from services.render.types import PersonalizeProgress, Precision, RenderedFrame, RenderFrame
from tests.refusals import raised
from tests.unit.render.conftest import small_weights
from tests.unit.render.drawn_person import drawing
from tests.unit.render.renderers.everyone.person import CONFIG, shown_frames, speaking, surface, write_weights
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


RECIPE = TextureRecipe(num_steps=2, batch_size=1, num_windows=4, report_every=1, learning_rate=0.05)


@pytest.fixture(scope="module")
def weights(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(small_weights, tmp_path_factory.mktemp("everyone") / "weights")


def job(bank: MouthBank, weights: Path, *, seed: int = 0, num_steps: int = 0, train: bool = True) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=drawing(), weights=weights, seed=seed, num_steps=num_steps, train=train)


@pytest.fixture(scope="module")
def reports(bank: MouthBank, weights: Path) -> list[PersonalizeProgress]:
    """Reports with seed 0."""
    return list(personalize_everyone(job(bank, weights), RECIPE))


def test_person_is_texture_and_state(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    before = (weights / "everyone.safetensors").read_bytes()
    assert [(report.step, report.num_steps) for report in reports] == [(1, 2), (2, 2)]
    texture = reports[-1].texture
    assert texture.shape == (256, 256, 16)
    assert texture.dtype == np.uint8
    assert texture.min() >= 1
    assert not np.array_equal(texture, bank_texture(bank, surface(), 0))
    style, reference = unpacked(reports[-1].state)
    assert len(style) == load(weights / "everyone.safetensors").state_size
    assert style.any()
    assert np.array_equal(reference, bank.boxes[reference_row(bank)])
    assert (weights / "everyone.safetensors").read_bytes() == before


def test_same_seed_same_bytes(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    """The same seed gives the same bytes, also of two searches that take turns."""
    again, other = (list(personalize_everyone(job(bank, weights, seed=seed), RECIPE))[-1] for seed in (0, 2))
    assert other.texture is not None
    assert reports[-1].texture.tobytes() == again.texture.tobytes()
    assert reports[-1].state.tobytes() == again.state.tobytes()
    assert again.texture.tobytes() != other.texture.tobytes()
    alone = reports[-1]
    turns = zip(*(personalize_everyone(job(bank, weights, seed=seed), RECIPE) for seed in (0, 2)), strict=True)
    *_, (beside, _) = turns
    assert beside.texture.tobytes() == alone.texture.tobytes()
    assert beside.state.tobytes() == alone.state.tobytes()


def test_wrong_model_and_missing_weights(bank: MouthBank, weights: Path, tmp_path: Path) -> None:
    """Expressions of another model than the identity are refused, and missing weights are named."""
    other = replace(bank, expression=np.zeros((bank.num_frames, 500), np.float32))
    with pytest.raises(InvalidRequestError, match="the bank has 500 expression coefficients a frame"):
        next(personalize_everyone(job(other, weights), RECIPE))
    with pytest.raises(ModelNotFoundError, match=r"everyone\.safetensors"):
        next(personalize_everyone(job(bank, tmp_path)))


def test_the_search_lowers_the_error(bank: MouthBank, weights: Path) -> None:
    recipe = TextureRecipe(num_steps=24, batch_size=1, num_windows=4, report_every=4, learning_rate=0.03)
    losses = [report.loss for report in personalize_everyone(job(bank, weights), recipe)]
    assert losses[-1] < losses[0]


def test_one_picture_gives_first_texture(bank: MouthBank, weights: Path) -> None:
    """Without training and from one picture, the first texture comes at once."""
    one = make_bank(bank.boxes[:1], bank.mouth[:1], bank.rotation[:1], bank.frame_index[:1], bank.geometry)
    for given, train in ((bank, False), (one, True)):
        (report,) = personalize_everyone(job(given, weights, train=train), RECIPE)
        assert (report.step, report.num_steps) == (0, 0)
        assert report.texture is not None
        assert np.array_equal(report.texture, bank_texture(given, surface(), 0))
        assert not unpacked(report.state)[0].any()


def test_bank_speech_and_expressions_used(bank: MouthBank) -> None:
    spoken = speaking(bank)
    windows = actor_windows(spoken, surface(), 12, 0)
    assert any(window.speech.any() for window in windows)
    assert not any(window.speech.any() for window in actor_windows(bank, surface(), 12, 0))
    rest = np.stack([surface().expression_of(bank.mouth[0])] * bank.num_frames)
    fitted = replace(bank, expression=rest)
    assert not np.array_equal(bank_texture(fitted, surface(), 0), bank_texture(bank, surface(), 0))


def test_reference_picture_from_other_moment(bank: MouthBank) -> None:
    """The reference picture of a window shows another moment."""
    # A pixel that no mask covers says which frame a picture is.
    boxes = bank.boxes.copy()
    boxes[:, 0, 0, 0] = np.arange(bank.num_frames)
    for window in actor_windows(replace(bank, boxes=boxes), surface(), 12, 0):
        assert abs(int(window.boxes[1, 0, 0, 0]) - int(window.reference[0, 0, 0])) > 10


def test_an_all_zero_state_shows_nobody() -> None:
    style, reference = unpacked(np.zeros(8 + 160 * 160 * 3, np.float32))
    assert not style.any()
    assert (reference == 128).all()
    picture = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    assert np.array_equal(unpacked(packed(style, picture))[1], picture)


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_network_learns_only_on_request(bank: MouthBank, weights: Path, rate: float) -> None:
    network = load(weights / "everyone.safetensors")
    before = {name: values.clone() for name, values in network.state_dict().items()}
    recipe = replace(RECIPE, network_learning_rate=rate)
    search = TextureSearch(network, bank_texture(bank, surface(), 0), recipe, 1, weights)
    list(search.run(actor_windows(bank, surface(), 2, 0), 0))
    same = [torch.equal(before[name], values) for name, values in network.state_dict().items()]
    assert all(same) == (rate == 0.0)
