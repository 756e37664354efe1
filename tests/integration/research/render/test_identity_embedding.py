import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from research.methods.headpose.identity_embedding import (
    NETWORK,
    AngularMarginHead,
    EmbeddingRecipe,
    EmbeddingTraining,
    area_under_roc,
    varied,
    verify,
)
from research.render.people import TrainingPerson
from research.training.training import LoopSettings, OptimiserSettings
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError, ModelNotFoundError
from services.common.face.mouth_bank import MouthBank
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.renderers.headpose.identity_features import EMBEDDING, IdentityEmbeddingConfig, read_identity_features
from tests.unit.research.render.tiny_training import add_clip, opened, run_whole_and_killed, weights_of

RECIPE = EmbeddingRecipe(
    loop=LoopSettings(steps=2, seed=1, check_every=1),
    optimiser=OptimiserSettings(learning_rate=1e-2, warm_up_steps=0, weight_decay=0.0, gradient_norm=1e3, averaging=0.5),
    pictures=3,
    network=IdentityEmbeddingConfig(widths=(8, 8, 8), size=4),
)


def arcface(path: Path, side: int) -> None:
    """A file of ArcFace's form: the mean of each quarter of the picture, [1, 12]."""
    pool = helper.make_node("AveragePool", ["data"], ["pooled"], kernel_shape=[side // 2] * 2, strides=[side // 2] * 2)
    graph = helper.make_graph(
        [pool, helper.make_node("Flatten", ["pooled"], ["feature"])],
        "arcface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, [1, 12])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_the_right_class_pays_the_margin() -> None:
    head = AngularMarginHead(2, 2, margin=0.3, scale=10.0)
    head.centres.data = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    angle = 0.4
    feature = torch.tensor([[math.cos(angle), math.sin(angle)]])
    logits = head(feature, torch.tensor([0])).detach()
    assert logits[0].tolist() == pytest.approx([10 * math.cos(angle + 0.3), 10 * math.sin(angle)], abs=1e-4)
    opposite = head(torch.tensor([[-1.0, 0.0]]), torch.tensor([0])).detach()[0, 0]
    assert float(opposite) == pytest.approx(10 * (-1.0 - 0.3 * math.sin(0.3)), abs=1e-2)


def test_the_area_under_the_curve() -> None:
    assert area_under_roc(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3])) == 1.0
    assert area_under_roc(np.array([0.1]), np.array([0.2, 0.3])) == 0.0
    assert area_under_roc(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0.5
    assert area_under_roc(np.array([0.2, 0.6]), np.array([0.4, 0.4])) == 0.5


def striped(bank: MouthBank) -> MouthBank:
    """The bank with a stripe on every eighth row."""
    boxes = bank.boxes.copy()
    boxes[:, ::8] //= 2
    return replace(bank, boxes=boxes)


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    folder = tmp_path_factory.mktemp("set")
    add_clip(folder, bank, "plain", speaker="plain")
    add_clip(folder, striped(bank), "striped", speaker="striped")
    add_clip(folder, bank, "other", speaker="other", split="val")
    return TrainSet(folder)


def test_two_people_are_told_apart_after_some_steps(bank: MouthBank, data: TrainSet) -> None:
    training = opened(NETWORK, replace(RECIPE, loop=replace(RECIPE.loop, steps=30)), data, {})
    assert isinstance(training, EmbeddingTraining)
    for step in range(30):
        training.learn(step, [training.batch(step, 0)])
    people = [TrainingPerson("plain", bank), TrainingPerson("striped", striped(bank))]
    found = verify(training.average.get_submodule("network"), people, pictures=6)
    assert found.area > 0.8
    assert found.same > found.different


@pytest.mark.long
def test_killed_run_same_weights(data: TrainSet, tmp_path: Path) -> None:
    whole, broken = run_whole_and_killed(NETWORK, RECIPE, data, {}, tmp_path, killed_at=1)
    assert weights_of(whole) == weights_of(broken)
    assert read_identity_features(whole / f"{EMBEDDING}.safetensors").size == 4
    assert "area_recoloured" in (whole / "CARD.md").read_text(), "one held-out person is told from a known one"


def test_batch_balances_people(data: TrainSet) -> None:
    """A batch has the same number of pictures of each person."""
    assert opened(NETWORK, RECIPE, data, {}).batch(0, 0).labels.tolist() == [0, 0, 0, 1, 1, 1]
    (one,) = set(opened(NETWORK, replace(RECIPE, batch_people=1), data, {}).batch(0, 0).labels.tolist())
    assert one in {0, 1}


def test_a_single_person_is_not_enough(bank: MouthBank, tmp_path: Path) -> None:
    add_clip(tmp_path, bank, "plain", speaker="plain")
    add_clip(tmp_path, bank, "other", speaker="other", split="val")
    with pytest.raises(InvalidRequestError, match="two people or more"):
        opened(NETWORK, RECIPE, TrainSet(tmp_path), {})


def test_a_varied_picture_depends_on_its_draw_alone(bank: MouthBank) -> None:
    one, again, other = (varied(bank.boxes[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (160, 160, 3)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_committed_embedding_recognises_face(bank: MouthBank) -> None:
    """The embedding that comes with dubstage knows a face again."""
    features = read_identity_features(WEIGHTS_FOLDER / f"{EMBEDDING}.safetensors")
    other = bank.boxes[0, :, :, ::-1].copy()
    made = features.of(np.stack([bank.boxes[0], bank.boxes[3], other]))
    assert made.shape == (3, features.size)
    assert np.allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)
    assert made[0] @ made[1] > made[0] @ made[2] + 0.1


def test_arcface_weights_of_the_user(bank: MouthBank, tmp_path: Path) -> None:
    arcface(tmp_path / "arcface.onnx", 112)
    features = read_identity_features(tmp_path / "arcface.onnx")
    made: npt.NDArray[np.float32] = features.of(bank.boxes[:2])
    assert (features.size, made.shape, len(features.sha256)) == (12, (2, 12), 64)
    assert np.allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)
    left_top = (bank.boxes[0, :80, :80].astype(float).mean(axis=(0, 1)) - 127.5) / 127.5
    ratio = made[0].reshape(3, 4)[:, 0] / left_top
    assert np.allclose(ratio, ratio[0], rtol=0.05)
    arcface(tmp_path / "small.onnx", 64)
    with pytest.raises(ModelNotFoundError, match="ArcFace takes"):
        read_identity_features(tmp_path / "small.onnx")
    with pytest.raises(ModelNotFoundError, match="no ArcFace network"):
        read_identity_features(tmp_path / "absent.onnx")
