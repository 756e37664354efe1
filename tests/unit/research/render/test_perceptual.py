from __future__ import annotations

import numpy as np
import pytest

from research.render.people import person_clips
from research.render.perceptual import PerceptualRecipe, draw_examples, landmark_scale
from research.training.training import LoopSettings
from research.training.trainset import TrainSet
from services.common.face.mouth_bank import MouthBank
from tests.unit.research.render.tiny_training import people_of, small_set

RECIPE = PerceptualRecipe(loop=LoopSettings(steps=2, seed=1, check_every=1, bfloat16=True), batch_size=2, widths=(4, 4, 4, 4))


@pytest.fixture(scope="module")
def data(bank: MouthBank, tmp_path_factory: pytest.TempPathFactory) -> TrainSet:
    return small_set(tmp_path_factory.mktemp("set"), bank)


def test_examples_depend_on_their_draw_alone(data: TrainSet) -> None:
    scale = landmark_scale(data, person_clips(data.of("train")))
    assert scale.shape == (2, 118)
    people = people_of(data)
    one, again, other = (draw_examples(people, scale, RECIPE, np.random.default_rng(seed), 0) for seed in (1, 1, 2))
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.pictures, other.pictures)
    assert one.values.shape == (2, 119)
    assert set(one.speakers.tolist()) <= {0, 1}
