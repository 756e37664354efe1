"""Ridge regression in closed form."""

from __future__ import annotations

import numpy as np

from research.motion.ridge import CENTRE, REACH, RidgeSums, distance_penalty


def test_a_linear_relation_is_found_with_its_bias() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((200, 3))
    sums = RidgeSums(3, 2)
    weight = np.array([[1.0, 0.0, -2.0], [0.5, 3.0, 0.0]])
    for part in np.array_split(inputs, 4):
        sums.add(part, part @ weight.T + [4.0, -1.0], 0.5)
    found = sums.solve(np.full(3, 1e-6 * sums.input_variance())).shared
    np.testing.assert_allclose(found.weight, weight, atol=1e-4)
    np.testing.assert_allclose(found.bias, [4.0, -1.0], atol=1e-4)


def test_narrow_corpus_stays_apart() -> None:
    """Facts that hold in a narrow corpus alone stay apart."""
    rng = np.random.default_rng(1)
    everywhere, in_corpus = np.array([[1.0, 0.0, -2.0]]), np.array([[0.0, 5.0, 0.0]])
    sums = RidgeSums(3, 1)
    for name, count, weight in (("", 60, everywhere), ("commands", 2000, everywhere + in_corpus)):
        inputs = rng.standard_normal((count, 3))
        sums.add(inputs, inputs @ weight.T + (3.0 if name else 1.0), 1.0, name)
    found = sums.solve(np.full(3, 1e-6 * sums.input_variance()))
    np.testing.assert_allclose(found.shared.weight, everywhere, atol=1e-3)
    np.testing.assert_allclose(found.shared.bias, [1.0], atol=1e-3)
    assert list(found.apart) == ["commands"]
    np.testing.assert_allclose(found.apart["commands"](np.array([[0.0, 2.0, 0.0]])), [[12.0]], atol=1e-2)


def test_narrow_corpus_teaches_shared_filter() -> None:
    """A narrow corpus teaches the shared filter what holds elsewhere too."""
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((1, 40))

    def error(with_corpus: bool) -> float:
        sums = RidgeSums(40, 1)
        for name, count in (("", 30), ("commands", 3000))[: 1 + with_corpus]:
            inputs = rng.standard_normal((count, 40))
            sums.add(inputs, inputs @ weight.T, 1.0 / count, name)
        return float(np.abs(sums.solve(np.full(40, 0.05 * sums.input_variance())).shared.weight - weight).mean())

    assert error(with_corpus=True) < 0.8 * error(with_corpus=False)


def test_far_frames_are_penalised_most() -> None:
    penalty = distance_penalty(25, 20, 2.0)
    assert penalty.argmin() == 20 - CENTRE
    assert penalty.min() == 2.0
    assert penalty[20 - CENTRE + int(REACH)] == 8.0
