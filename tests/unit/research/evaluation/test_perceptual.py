from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from research.evaluation.perceptual import SuppliedNetworks, frechet_distance
from services.common.errors import InvalidRequestError
from tests.refusals import raised


class Means(torch.nn.Module):
    """Mean colour of a picture, called as the user's networks are."""

    def forward(
        self, x: torch.Tensor, resize_images: bool = False, return_lpips: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class OfOneSize(torch.nn.Module):
    """A network for pictures of one size only."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert x.shape[2] == 299, "pictures have 299 pixels a side"
        return x.flatten(1)


class Features(torch.nn.Module):
    """Network of FID that does not know the options of LPIPS."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class Distances(torch.nn.Module):
    """Network of LPIPS that does not know the options of FID."""

    def forward(self, x: torch.Tensor, resize_images: bool = False, return_lpips: bool = False) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def saved(module: torch.nn.Module, file: Path) -> Path:
    torch.jit.script(module).save(str(file))  # type: ignore[no-untyped-call]
    return file


def test_frechet_distance_of_gaussians() -> None:
    """Fréchet distance of shifted Gaussians is the squared shift."""
    rows = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(rows, rows + np.array([3.0, 4.0, 0.0, 0.0])) == pytest.approx(25.0)
    assert frechet_distance(rows, 2 * (rows - rows.mean(0)) + rows.mean(0)) == pytest.approx(
        np.trace(np.cov(rows, rowvar=False)), rel=1e-6
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_supplied_networks_measure_pictures(tmp_path: Path) -> None:
    file = saved(Means(), tmp_path / "means.pt")
    accumulator = SuppliedNetworks(file, file).accumulator()
    levels = np.random.default_rng(1).integers(50, 200, (60, 1, 1, 3))
    truth = np.broadcast_to(levels, (60, 8, 8, 3)).astype(np.uint8)
    accumulator.add(truth[:30], truth[:30] + 2)
    accumulator.add(truth[30:], truth[30:] + 2)
    values = accumulator.values()
    assert values["lpips"] == pytest.approx(12.0)
    assert values["fid"] == pytest.approx(12.0, rel=1e-5)


def test_missing_or_wrong_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"nowhere\.pt do not exist"):
        SuppliedNetworks(tmp_path / "nowhere.pt", None)
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(b"not a network")
    with pytest.raises(InvalidRequestError, match="TorchScript"):
        SuppliedNetworks(None, wrong)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_networks_under_wrong_option_refused(tmp_path: Path) -> None:
    """Networks under the wrong option are refused when they are loaded."""
    lpips, fid = saved(Distances(), tmp_path / "lpips.pt"), saved(Features(), tmp_path / "fid.pt")
    with pytest.raises(InvalidRequestError, match=r"--lpips-weights .*fid\.pt: this network"):
        SuppliedNetworks(fid, lpips)
    with raised(InvalidRequestError, match=r"--fid-weights .*lpips\.pt: this network", field="fid_weights"):
        SuppliedNetworks(None, lpips)
    with pytest.raises(InvalidRequestError, match=r"no FID features \(.*299 pixels"):
        SuppliedNetworks(None, saved(OfOneSize(), tmp_path / "large.pt"))
    assert set(SuppliedNetworks(lpips, fid).sha256) == {"lpips", "fid"}
