"""Thin-plate splines as backward maps."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.face.thin_plate_spline import (
    GRID_SIZE,
    GRID_STEP,
    ThinPlateSpline,
    bending_energy,
    dense_map,
    evaluate,
    evaluate_grid,
    fit_spline,
    fitting_error,
    warp,
)

RANDOM = np.random.default_rng(3)
WANTED = RANDOM.uniform(10, 150, (40, 2))
SOURCE = WANTED + RANDOM.normal(0, 2, WANTED.shape)
AFFINE = WANTED @ np.array([[1.1, 0.05], [-0.1, 0.9]]) + (3.0, -4.0)
PIXELS = np.stack(np.meshgrid(np.arange(160), np.arange(160)), axis=-1)


def picture() -> np.ndarray:
    x, y = PIXELS[..., 0], PIXELS[..., 1]
    return np.stack([x, y, 127 + 100 * np.sin(x / 9) * np.cos(y / 7)], axis=-1).astype(np.uint8)


def test_without_smoothing_the_spline_meets_every_point() -> None:
    np.testing.assert_allclose(evaluate(fit_spline(WANTED, SOURCE, 0.0), WANTED), SOURCE, atol=1e-8)


def test_affine_map_reproduced_exactly() -> None:
    """An affine map is reproduced everywhere whatever the smoothing."""
    spline = fit_spline(WANTED, AFFINE, 300.0)
    np.testing.assert_allclose(spline.weights, 0.0, atol=1e-10)
    assert fitting_error(spline, AFFINE) < 1e-8
    assert bending_energy(evaluate_grid(spline)) < 1e-8


def test_more_smoothing_bends_less_and_misses_more() -> None:
    splines = [fit_spline(WANTED, SOURCE, smoothing) for smoothing in (1.0, 100.0, 10_000.0)]
    bends = [float(bending_energy(evaluate_grid(spline))) for spline in splines]
    misses = [float(fitting_error(spline, SOURCE)) for spline in splines]
    assert bends == sorted(bends, reverse=True)
    assert misses == sorted(misses)


def test_smoothing_may_differ_from_point_to_point() -> None:
    smoothing = np.where(np.arange(40) < 10, 0.0, 1000.0)
    spline = fit_spline(WANTED, SOURCE, smoothing)
    assert fitting_error(spline, SOURCE, count=10) < 1e-8
    assert fitting_error(spline, SOURCE) > 0.1


def test_side_conditions_bound_the_map() -> None:
    """Side conditions hold so that the map is tame far away."""
    spline = fit_spline(WANTED, SOURCE, 10.0)
    np.testing.assert_allclose(spline.weights.sum(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(WANTED.T @ spline.weights, 0.0, atol=1e-7)


def test_grid_nodes_and_dense_map() -> None:
    """The grid holds the spline at its nodes and the dense map between them."""
    spline = fit_spline(WANTED, SOURCE, 300.0)
    grid = evaluate_grid(spline)
    assert grid.shape == (GRID_SIZE, GRID_SIZE, 2)
    exact = evaluate(spline, PIXELS.reshape(-1, 2).astype(float)).reshape(160, 160, 2)
    np.testing.assert_allclose(grid[1:-2, 1:-2], exact[::GRID_STEP, ::GRID_STEP], atol=2e-3)
    np.testing.assert_allclose(dense_map(grid), exact, atol=0.05)


def test_maps_side_by_side_are_the_maps_alone() -> None:
    together = fit_spline(WANTED, np.concatenate([SOURCE, AFFINE], axis=1), 50.0)
    for place, values in ((0, SOURCE), (2, AFFINE)):
        alone = fit_spline(WANTED, values, 50.0)
        np.testing.assert_allclose(together.weights[:, place : place + 2], alone.weights, atol=1e-10)
        np.testing.assert_allclose(evaluate_grid(together)[..., place : place + 2], evaluate_grid(alone), atol=5e-3)


def test_batch_equals_single_frames() -> None:
    """A batch of frames is the frames one by one."""
    target = np.stack([WANTED, WANTED + 1, SOURCE])
    source = np.stack([SOURCE, AFFINE, WANTED])
    grids = evaluate_grid(fit_spline(target, source, 20.0))
    for frame in range(3):
        np.testing.assert_allclose(grids[frame], evaluate_grid(fit_spline(target[frame], source[frame], 20.0)), atol=5e-3)


def test_the_identity_leaves_a_picture_as_it_is() -> None:
    np.testing.assert_array_equal(warp(picture(), dense_map(evaluate_grid(fit_spline(WANTED, WANTED, 300.0)))), picture())


@pytest.mark.parametrize("cubic", [True, False])
def test_the_map_is_backward_from_output_to_source(cubic: bool) -> None:
    moved = warp(picture(), dense_map(evaluate_grid(fit_spline(WANTED, WANTED + np.array([5.5, -3.5]), 300.0))), cubic=cubic)
    np.testing.assert_allclose(moved[10:-10, 10:-10, 0], picture()[10:-10, 10:-10, 0] + 5.5, atol=1)
    np.testing.assert_allclose(moved[10:-10, 10:-10, 1], picture()[10:-10, 10:-10, 1] - 3.5, atol=1)


def test_bending_energy_of_a_known_surface() -> None:
    x = np.arange(GRID_SIZE, dtype=np.float32)[None, :] * GRID_STEP
    y = np.arange(GRID_SIZE, dtype=np.float32)[:, None] * GRID_STEP
    grid = np.stack([0.01 * x**2 + 0 * y, 0.02 * x * y], axis=-1)
    assert float(bending_energy(grid)) == pytest.approx(0.02**2 + 2 * 0.02**2, rel=1e-2)


def test_parameters_have_the_documented_shapes() -> None:
    spline = fit_spline(np.stack([WANTED] * 4), np.stack([SOURCE] * 4), 1.0)
    assert isinstance(spline, ThinPlateSpline)
    assert (spline.centres.shape, spline.weights.shape, spline.affine.shape) == ((4, 40, 2), (4, 40, 2), (4, 3, 2))
