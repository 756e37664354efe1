"""Tests of a person's neutral shape and own shape."""

from __future__ import annotations

import numpy as np
import pytest

from research.face.neutral_shape import neutral_shape, own_shape
from services.common.face.crops import head_template
from services.common.face.landmarks import INNER_LOWER_MIDDLE
from services.common.geometry.morphable_model import default_model


def test_neutral_shape_closed_lips_open_eyes():
    """The neutral shape is that of closed lips and open eyes."""
    shapes = np.repeat(head_template()[None], 40, 0)
    shapes[:20, INNER_LOWER_MIDDLE, 1] += 15.0  # open mouth
    shapes[20:24, 159] = shapes[20:24, 145]  # blinks with a closed mouth
    assert neutral_shape(shapes) == pytest.approx(head_template(), abs=1e-3)


def test_one_frame_is_its_own_neutral_shape():
    assert neutral_shape(head_template()[None]) == pytest.approx(head_template())


def test_the_own_shape_completes_the_basis():
    model, random = default_model(), np.random.default_rng(9)
    identity = random.normal(size=model.num_identity)
    neutral = head_template() + random.normal(size=(468, 3))
    offset = own_shape(model, identity, neutral)
    assert model.shape(identity, np.zeros(model.num_expression), offset) == pytest.approx(neutral, abs=1e-3)
