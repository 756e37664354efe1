"""Ridge regression in closed form."""

from __future__ import annotations

import numpy as np

from services.motion.train.ridge import CENTRE, REACH, RidgeSums, distance_penalty


def test_a_linear_relation_is_found_with_its_bias() -> None:
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.standard_normal((200, 3)), np.ones((200, 1))], axis=1)
    sums = RidgeSums(3, 2)
    weight = np.array([[1.0, 0.0, -2.0], [0.5, 3.0, 0.0]])
    for part in np.array_split(inputs, 4):
        sums.add(part, part[:, :3] @ weight.T + [4.0, -1.0], 0.5)
    found = sums.solve(np.full(3, 1e-6 * sums.input_variance()))
    np.testing.assert_allclose(found.weight, weight, atol=1e-4)
    np.testing.assert_allclose(found.bias, [4.0, -1.0], atol=1e-4)


def test_far_frames_are_penalised_most() -> None:
    penalty = distance_penalty(25, 20, 2.0)
    assert penalty.argmin() == 20 - CENTRE
    assert penalty.min() == 2.0
    assert penalty[20 - CENTRE + int(REACH)] == 8.0
