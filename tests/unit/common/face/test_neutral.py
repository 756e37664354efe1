"""Neutral shapes."""

import numpy as np
import pytest

from services.common.face.crops import head_template
from services.common.face.landmarks import INNER_LOWER_MIDDLE
from services.common.face.neutral import neutral_shape, own_shape
from services.common.geometry.default_model import default_model

RANDOM = np.random.default_rng(3)


def test_the_neutral_shape_is_that_of_closed_lips_and_open_eyes():
    shapes = np.repeat(head_template()[None], 40, 0)
    shapes[:20, INNER_LOWER_MIDDLE, 1] += 15.0  # open mouth
    shapes[20:24, 159] = shapes[20:24, 145]  # blinks with a closed mouth
    assert neutral_shape(shapes) == pytest.approx(head_template(), abs=1e-3)


def test_one_frame_is_its_own_neutral_shape():
    assert neutral_shape(head_template()[None]) == pytest.approx(head_template())


def test_the_own_shape_completes_the_basis():
    model = default_model()
    identity = RANDOM.normal(size=model.num_identity)
    neutral = head_template() + RANDOM.normal(size=(468, 3))
    offset = own_shape(model, identity, neutral)
    assert model.shape(identity, np.zeros(model.num_expression), offset) == pytest.approx(neutral, abs=1e-3)
