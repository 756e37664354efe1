from __future__ import annotations

import numpy as np
import pytest

from services.common.array_types import Float64
from services.motion.correction import RIDGES, choose_ridge, fit_correction, held_out_corrections


def _pooled(rng: np.random.Generator, count: int, size: int) -> Float64:
    return np.concatenate([rng.normal(size=(count, size)), np.ones((count, 1))], axis=1)


def test_correction_generalises_in_time() -> None:
    """A correction holds on other seconds of the person."""
    rng = np.random.default_rng(0)
    pooled = np.concatenate([rng.normal(size=(400, 12)), np.ones((400, 1))], axis=1)
    missed = pooled @ rng.normal(size=(13, 3)) + rng.normal(0.0, 0.5, (400, 3))
    correction = fit_correction(pooled[:250], missed[:250])
    left = missed[250:] - pooled[250:] @ correction.T
    assert (left**2).mean() < 0.1 * (missed[250:] ** 2).mean()


def test_lasting_level_is_offset() -> None:
    """A level that lasts is an offset and tells nothing of the sound."""
    rng = np.random.default_rng(0)
    pooled = np.concatenate([rng.normal(size=(200, 4)), np.ones((200, 1))], axis=1)
    pooled[100:, 0] += 3.0
    residual = np.where(np.arange(200) < 100, 0.0, 1.0)[:, None]
    correction = fit_correction(pooled, residual)
    assert np.abs(correction[0, :-1]).max() < 0.05
    assert correction[0, -1] == pytest.approx(0.5 * 200 / 220, abs=0.1)


def test_a_stronger_ridge_believes_less() -> None:
    rng = np.random.default_rng(1)
    pooled = _pooled(rng, 150, 6)
    missed = pooled @ rng.normal(size=(7, 2))
    sizes = [float(np.linalg.norm(fit_correction(pooled, missed, ridge)[:, :-1])) for ridge in RIDGES]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.5 * sizes[0]


def test_ridge_follows_explained_residual() -> None:
    """The ridge is weak where the sound explains what was missed."""
    rng = np.random.default_rng(2)
    pooled = _pooled(rng, 250, 12)
    choice = choose_ridge(pooled, pooled @ rng.normal(size=(13, 3)), np.ones(3))
    assert choice.ridge == RIDGES[0]
    assert choice.loss < 0.05


def test_the_ridge_is_strong_where_it_does_not() -> None:
    rng = np.random.default_rng(3)
    choice = choose_ridge(_pooled(rng, 250, 60), rng.normal(size=(250, 3)), np.ones(3))
    assert choice.ridge == RIDGES[-1]
    assert choice.loss > 0.95


def test_level_changes_hide_nothing() -> None:
    """Levels that differ between seconds do not hide what the sound explains."""
    rng = np.random.default_rng(4)
    pooled = _pooled(rng, 250, 8)
    missed = pooled @ rng.normal(size=(9, 2))
    drifting = missed + np.repeat(rng.normal(0.0, 4.0, (5, 2)), 50, axis=0)
    plain, drifted = (choose_ridge(pooled, each, np.ones(2)) for each in (missed, drifting))
    assert drifted.ridge == plain.ridge
    assert drifted.loss < 0.05


def test_ten_held_out_parts() -> None:
    """Minutes are held out in ten parts and choose as seconds do."""
    rng = np.random.default_rng(6)
    pooled = _pooled(rng, 3000, 12)
    weak = choose_ridge(pooled, pooled @ rng.normal(size=(13, 3)), np.ones(3))
    strong = choose_ridge(pooled, rng.normal(size=(3000, 3)), np.ones(3))
    assert weak.ridge == RIDGES[0]
    assert weak.loss < 0.01
    assert strong.ridge == RIDGES[-1]
    assert 0.99 < strong.loss < 1.05


def test_a_coefficient_without_weight_does_not_choose() -> None:
    rng = np.random.default_rng(5)
    pooled = _pooled(rng, 150, 40)
    both = np.concatenate([pooled[:, :1], 5.0 * rng.normal(size=(150, 1))], axis=1)
    assert choose_ridge(pooled, both, np.array([1.0, 0.0])).ridge < choose_ridge(pooled, both, np.array([0.0, 1.0])).ridge


def test_held_out_correction_excludes_block() -> None:
    """Held out corrections know what the sound explains and nothing of their own block."""
    rng = np.random.default_rng(6)
    pooled = _pooled(rng, 250, 60)
    explained, noise = pooled @ rng.normal(size=(61, 3)), rng.normal(size=(250, 3))
    found = held_out_corrections(pooled, explained, 1.0)
    assert ((found - explained) ** 2).mean() < 0.05 * (explained**2).mean()
    learned = pooled @ fit_correction(pooled, noise, 1.0).T
    assert abs((held_out_corrections(pooled, noise, 1.0) * noise).mean()) < 0.3 * (learned * noise).mean()
