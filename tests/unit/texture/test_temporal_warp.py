"""The temporal-warp network: what it starts as, what its loss is, what the committed one brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from research.texture.temporal_warp import EnergyWeights, TemporalWarp, TemporalWarpConfig, spline_energies
from services.common.errors import ModelNotFoundError
from services.common.face.mouth_bank import BORDER_POINTS, SMOOTHING, MouthBank, retrieve, target_points, window_costs
from services.common.face.mouth_texture import fit_retrieved
from services.common.face.thin_plate_spline import evaluate_grid, fit_spline, fitting_error
from services.texture.bank import build_bank
from services.texture.temporal_warp import TemporalWarpModel
from tests.unit.common.face.banks import causal_windows

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson


def temporal_energy(grids: np.ndarray) -> float:
    """Et of Eq. 8: mean square of the second time difference of maps [T, G, G, 2], x and y parts summed, box pixels^2."""
    field = grids.astype(np.float64)
    return float(((field[2:] - 2 * field[1:-1] + field[:-2]) ** 2).sum(-1).mean())


@pytest.fixture(scope="module")
def chain(person: DrawnPerson) -> tuple[np.ndarray, np.ndarray]:
    """Control points of a target sequence and of a real one of the same person: float32 [20, 86, 2] each."""
    bank = build_bank([person.bank_frame(number) for number in range(20)])
    random = np.random.default_rng(5)
    target = []
    for number in range(300, 320):
        mouth = person.mouth(number) + random.normal(0, 0.7, (59, 3)).astype(np.float32)
        target.append(target_points(mouth, bank.geometry, person.pose(number)))
    return np.stack(target), bank.control_points


def test_the_untrained_network_is_the_plain_spline() -> None:
    network = TemporalWarp(TemporalWarpConfig())
    points = torch.rand(2, 6, 86, 2) * 160
    assert not network(points, points + torch.randn_like(points)).any()


def test_loss_equals_spline_energies(chain: tuple[np.ndarray, np.ndarray]) -> None:
    """The training loss is the energies of the serving splines."""
    target, source = chain
    energies = spline_energies(*(torch.from_numpy(points).double()[None] for points in (target, source, source)))
    spline = fit_spline(target, source, SMOOTHING)
    assert float(energies.fitting) == pytest.approx(fitting_error(spline, source, 74).mean(), rel=1e-6)
    served = temporal_energy(evaluate_grid(spline)[:, 1:-1:4, 1:-1:4])
    assert float(energies.temporal) == pytest.approx(served, rel=1e-3)
    weights = EnergyWeights(fitting=1.0, bending=0.0, temporal=2.0)
    assert float(energies.total(weights)) == pytest.approx(float(energies.fitting) + 2 * float(energies.temporal))


def test_the_committed_network_calms_the_warp(chain: tuple[np.ndarray, np.ndarray], model: TemporalWarpModel) -> None:
    target, source = chain
    plain, corrected = [], []
    for end in range(5, 20):
        window = slice(end - 5, end + 1)
        moved = source[end] + model.residual(target[window], source[None, window])[0]
        plain.append(evaluate_grid(fit_spline(target[end], source[end], SMOOTHING)))
        corrected.append(evaluate_grid(fit_spline(target[end], moved, SMOOTHING)))
    assert temporal_energy(np.stack(corrected)) < 0.92 * temporal_energy(np.stack(plain))


def test_window_bits_independent_of_batch(chain: tuple[np.ndarray, np.ndarray], model: TemporalWarpModel) -> None:
    """A window gets the same bits alone and beside others."""
    target, source = chain
    windows = np.stack([source[start : start + 6] for start in (0, 4, 9)])
    together = model.residual(target[:6], windows)
    for count in (1, 2):
        np.testing.assert_array_equal(model.residual(target[:6], windows[:count]), together[:count])


def test_box_border_stays(chain: tuple[np.ndarray, np.ndarray], model: TemporalWarpModel) -> None:
    """The border of the box stays where it is."""
    target, source = chain
    moved = model.residual(target[:6], source[None, 8:14])
    assert not moved[:, -len(BORDER_POINTS) :].any()
    assert np.abs(moved).max() > 0


def test_the_residual_reaches_the_spline(person: DrawnPerson, model: TemporalWarpModel) -> None:
    bank: MouthBank = build_bank([person.bank_frame(number) for number in range(30)])
    mouths = np.stack([person.mouth(number) for number in range(100, 106)])
    target = np.stack([target_points(mouth, bank.geometry, person.pose(105)) for mouth in mouths])
    found = retrieve(bank, window_costs(bank, causal_windows(mouths)[-1], person.pose(105).rotation))
    residual = model.residual(target, bank.control_points[found.rows])
    plain, corrected = fit_retrieved(bank, found, target[-1]), fit_retrieved(bank, found, target[-1], residual)
    for place in range(len(found.rows)):
        columns = slice(2 * place, 2 * place + 2)
        extra = fit_spline(target[-1], residual[place], SMOOTHING)
        np.testing.assert_allclose(corrected.weights[:, columns] - plain.weights[:, columns], extra.weights, atol=1e-6)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nowhere\.onnx"):
        TemporalWarpModel(tmp_path / "nowhere.onnx")
