import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from services.common.face.mouth_bank import MouthBank, make_bank
from services.render.networks.weights import save_weights, to_tensor
from services.render.personalization import PersonalizeRecipe, personalized
from services.render.renderer import PersonalizeJob
from services.render.renderers.hetero.network import HeteroConfig, HeteroNetwork, load
from services.render.renderers.hetero.personalize import FixedEmbedder, actor_pairs, personalize_hetero
from services.render.renderers.hetero.renderer import EMBEDDING_SIZE, NUM_CHANNELS, STATE_SIZE, choose_references, packed, unpacked
from services.render.streams import RenderModels, default_state
from services.render.types import PersonalizeProgress, RenderedFrame, RenderFrame
from tests.integration.render.renderers.drawn_actor import DrawnActor, bytes_of, drawn_by
from tests.integration.render.renderers.masks import is_background_outside, repainted, skin_error
from tests.unit.render.rendering import RUNTIMES


def person(models: RenderModels, bank: MouthBank) -> DrawnActor:
    """The drawn person, with numbers of some size for the layers."""
    length = models.files["hetero"].state_size - STATE_SIZE
    numbers = np.random.default_rng(2).normal(0.0, 0.02, length).astype(np.float32)
    return DrawnActor(models, "hetero", packed(numbers, bank.boxes[5]))


def test_parts_of_a_stream(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """Chunks change no byte, and a part with the frames before and after gives the bytes of the whole stream."""
    assert [made.frame_index for made in whole] == list(range(20, 30))
    assert bytes_of(whole) == bytes_of(actor.drawn(clip[:1], clip[1:4], clip[4:9], clip[9:]))
    part = [replace(frame, context_only=place not in (4, 5)) for place, frame in enumerate(clip)][2:8]
    assert bytes_of(whole)[4:6] == bytes_of(actor.drawn(part))
    for alone in (part[:4], part[2:]):
        assert bytes_of(whole)[4:6] != bytes_of(actor.drawn(alone))


def test_mask_divides_face_and_footage(actor: DrawnActor, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """What the masks hide has no influence, and outside the mask the box is the background."""
    assert bytes_of(actor.drawn(clip[:3])) == bytes_of(actor.drawn(list(map(repainted, clip[:3]))))
    assert all(is_background_outside(frame, made) for frame, made in zip(clip, whole, strict=True))


def opened_by(shut: RenderedFrame, wide: RenderedFrame, bank: MouthBank) -> npt.NDArray[np.float64]:
    """Return the change of the mouth if the target mouth is open, grey levels, flat."""
    x, y = bank.box_landmarks[6, 20:40].mean(axis=0).round().astype(int)
    part = slice(y - 14, y + 15), slice(x - 18, x + 19)
    return np.asarray(wide.box[part].astype(np.float64) - shut.box[part]).ravel()


def test_reference_changes_skin_not_lips(actor: DrawnActor, bank: MouthBank, clip: list[RenderFrame]) -> None:
    untrained = replace(actor, state=packed(np.zeros(len(actor.state) - STATE_SIZE, np.float32), bank.boxes[0]))
    # A moustache and a beard.
    bearded = bank.boxes[0].copy()
    bearded[110:150:2, 30:130] //= 3
    shut, wide = (replace(clip[0], frame_index=0, box_landmarks=bank.box_landmarks[row]) for row in (0, 6))
    pictures = [[untrained.drawn([frame], reference=given)[0] for frame in (shut, wide)] for given in (None, bearded)]
    own, other = (each[0].box.astype(int) for each in pictures)
    chin = slice(118, 140), slice(50, 110)
    assert np.abs(own[chin] - other[chin]).mean() > 3.0
    changes = [opened_by(closed, opened, bank) for closed, opened in pictures]
    assert min(np.abs(change).mean() for change in changes) > 4.0
    assert np.corrcoef(*changes)[0, 1] > 0.6


def test_own_reference_is_default(actor: DrawnActor, bank: MouthBank, clip: list[RenderFrame], whole: list[RenderedFrame]) -> None:
    """The actor's own reference is used unless another is given."""
    other = replace(actor, state=packed(actor.state[:-STATE_SIZE], bank.boxes[0]))
    assert bytes_of(other.drawn(clip)) != bytes_of(whole)
    given = [bytes_of(each.drawn(clip, reference=bank.boxes[30])) for each in (actor, other)]
    assert given[0] == given[1]


def test_runtimes_agree(bank: MouthBank, clip: list[RenderFrame]) -> None:
    float_, openvino, int8 = drawn_by(RUNTIMES, lambda models: person(models, bank), clip[0])
    assert np.abs(float_ - openvino).max() <= 1
    assert np.abs(float_ - int8).mean() < 1.5


def test_nobody_can_be_drawn(models: RenderModels, clip: list[RenderFrame]) -> None:
    (made,) = DrawnActor(models, "hetero", default_state(models.files["hetero"])).drawn(clip[:1])
    assert skin_error(clip[0], made) < 60


RECIPE = PersonalizeRecipe(num_steps=2, batch_size=1, num_pairs=3, report_every=1)
FILE = "hetero.safetensors"


@pytest.fixture(scope="module")
def weights(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hetero") / "weights"
    shutil.copytree(small_weights, folder)
    torch.manual_seed(6)
    network = HeteroNetwork(
        HeteroConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), embedder_widths=(4, 4, 4, 4), rank=2, adain_levels=3)
    )
    for value in network.parameters():
        if value.ndim > 1 and not value.any():
            torch.nn.init.normal_(value, std=0.05)
    save_weights(folder / FILE, network, network.config.to_metadata())
    return folder


def job(bank: MouthBank, weights: Path, *, seed: int = 0, train: bool = True) -> PersonalizeJob:
    return PersonalizeJob(bank=bank, drawing=None, weights=weights, seed=seed, train=train)


@pytest.fixture(scope="module")
def reports(bank: MouthBank, weights: Path) -> list[PersonalizeProgress]:
    """Reports with seed 0."""
    return list(personalize_hetero(job(bank, weights), RECIPE))


def test_layers_learn_from_a_seed(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    """Layers learn, the state holds the reference, and the same seed gives the same bytes."""
    assert [(report.step, report.num_steps) for report in reports] == [(1, 2), (2, 2)]
    numbers, reference = unpacked(reports[-1].state)
    assert len(numbers) == load(weights / FILE).state_size
    assert numbers[:-EMBEDDING_SIZE].any()
    assert np.array_equal(reference, bank.boxes[choose_references(bank)[0]])
    again, other = (list(personalize_hetero(job(bank, weights, seed=seed), RECIPE))[-1].state.tobytes() for seed in (0, 2))
    assert reports[-1].state.tobytes() == again
    assert again != other


def test_fine_tuning_keeps_embedder(bank: MouthBank, weights: Path, reports: list[PersonalizeProgress]) -> None:
    network, rows = load(weights / FILE), choose_references(bank)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = FixedEmbedder(network, bank, rows)
    list(personalized(generator, actor_pairs(bank, rows, RECIPE.num_pairs, 0), job(bank, weights), RECIPE))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    (untrained,) = personalize_hetero(job(bank, weights, train=False), RECIPE)
    vectors = [unpacked(report.state)[0][-EMBEDDING_SIZE:] for report in (untrained, reports[-1])]
    assert np.array_equal(*vectors)
    assert vectors[0].any()


def test_vector_is_mean_over_references(bank: MouthBank, weights: Path) -> None:
    network, rows = load(weights / FILE), choose_references(bank)
    (report,) = personalize_hetero(job(bank, weights, train=False), RECIPE)
    numbers, reference = unpacked(report.state)
    own = network.embedder(to_tensor(reference[None])).vector[0].numpy()
    mean = network.embedder(to_tensor(bank.boxes[rows])).vector.mean(dim=0).numpy()
    np.testing.assert_allclose(own + numbers[-EMBEDDING_SIZE:], mean, atol=1e-5)


def test_fine_tuning_draws_as_network(bank: MouthBank, weights: Path) -> None:
    network, rows = load(weights / FILE), choose_references(bank)
    generator = FixedEmbedder(network, bank, rows)
    pictures = to_tensor(np.zeros((1, 160, 160, NUM_CHANNELS), np.uint8))
    layers = torch.full((1, network.layers_size), 0.01)
    vector = generator.mean - network.embedder(pictures[:, 3:6]).vector[0]
    torch.testing.assert_close(generator(pictures, layers), network(pictures, torch.cat([layers, vector[None]], dim=1)))


def test_untrained_bank_gives_reference(bank: MouthBank, weights: Path) -> None:
    """Without other moments or training, a bank gives its reference picture."""
    few = make_bank(bank.boxes[:5], bank.mouth[:5], bank.rotation[:5], bank.frame_index[:5], bank.geometry)
    for given, train in ((few, True), (bank, False)):
        (report,) = personalize_hetero(job(given, weights, train=train), RECIPE)
        assert (report.step, report.num_steps) == (0, 0)
        numbers, reference = unpacked(report.state)
        assert not numbers[:-EMBEDDING_SIZE].any()
        assert np.array_equal(reference, given.boxes[choose_references(given)[0]])


def test_examples_skip_own_reference(bank: MouthBank) -> None:
    """No example is shown a reference picture of its own moment."""
    # Pixels that no mask covers say which frame a picture is.
    boxes = bank.boxes.copy()
    boxes[:, 0, 0, 0] = np.arange(bank.num_frames)
    references = np.array([2, 25, 46])
    changed = boxes.copy()
    changed[2] = 255 - changed[2]
    recipe = replace(RECIPE, num_pairs=48)
    one, other = (actor_pairs(replace(bank, boxes=given), references, recipe.num_pairs, 0) for given in (boxes, changed))
    assert len(one) == 48
    for row, (pair, again) in enumerate(zip(one, other, strict=True)):
        if 4 < row <= 12:
            assert np.array_equal(pair.picture, again.picture)
    assert not all(np.array_equal(pair.picture, again.picture) for pair, again in zip(one[13:], other[13:], strict=True))
