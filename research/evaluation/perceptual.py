"""LPIPS and FID by networks that the user supplies as TorchScript files. Dubstage downloads no network and contains none.

LPIPS (Zhang et al. 2018): a file whose module is called as `module(pictures, resize_images=False, return_lpips=True)` and gives
features [N, F], weighted so that their squared distance is LPIPS (NVIDIA's vgg16.pt).
FID (Heusel et al. 2017): a file whose module is called as `module(pictures, return_features=True)` and gives features [N, F]
(NVIDIA's inception-2015-12-05.pt). Pictures are float32 [N, 3, 256, 256], RGB, 0 .. 255.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.common.array_types import Float64, UInt8
from services.common.errors import InvalidRequestError
from services.common.files import digest_and_size

_BATCH: Final = 16
_SIDE: Final = 256
_LPIPS: Final = {"resize_images": False, "return_lpips": True}
_FID: Final = {"return_features": True}
MIN_FID_FRAMES: Final = 50
"""Fewest pictures from which a covariance is estimated."""


def frechet_distance(a: Float64, b: Float64) -> float:
    """Return the Fréchet distance of two Gaussians fitted to feature rows, float64 [N, F] and [M, F], N and M >= 2.

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).
    """
    covariance_a, covariance_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    # tr((S_a S_b)^(1/2)) is the sum of the roots of the eigenvalues of the product, which are real and not negative.
    eigenvalues = np.linalg.eigvals(covariance_a @ covariance_b)
    cross = float(np.sqrt(np.maximum(eigenvalues.real, 0.0)).sum())
    shift = float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum())
    return max(0.0, shift + float(np.trace(covariance_a) + np.trace(covariance_b)) - 2.0 * cross)


def _features(module: Any, pictures: UInt8, options: dict[str, bool]) -> Float64:
    import torch

    rows: list[Float64] = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            batch = torch.from_numpy(pictures[start : start + _BATCH].astype(np.float32)).permute(0, 3, 1, 2)
            rows.append(module(batch, **options).flatten(1).double().numpy())
    return np.concatenate(rows)


def _load(path: Path, what: str, options: dict[str, bool]) -> Any:
    # Path.is_file raises an error for a name that is too long; os.path.isfile does not.
    if not os.path.isfile(path):
        raise InvalidRequestError(f"{what} weights {path} do not exist; give the TorchScript file or leave the option out")
    try:
        import torch
    except ImportError:
        raise InvalidRequestError(f"{what} needs PyTorch: pip install torch, or leave its weights out") from None
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InvalidRequestError(f"{what} weights {path} are not a TorchScript file: {first}") from error
    # A file of another network is noticed now, and not after the first clip was rendered.
    try:
        _features(module, np.zeros((1, _SIDE, _SIDE, 3), np.uint8), options)
    except (torch.jit.Error, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        # TorchScript's own errors say last what is wrong.
        reason = str(error).strip().splitlines()[-1 if isinstance(error, torch.jit.Error) else 0]
        raise InvalidRequestError(
            f"--{what.lower()}-weights {path}: this network gives no {what} features ({reason}); "
            f"give the file of an {what} network",
            field=f"{what.lower()}_weights",
        ) from error
    return module


class SuppliedNetworks:
    """Networks that the user supplied. `lpips` and `fid` are measured if their file was given.

    Attributes:
        sha256: digest of each file, by the name of its metric.

    Raises:
        InvalidRequestError: a file is missing, is not TorchScript, or holds another network.
    """

    def __init__(self, lpips_weights: Path | None, fid_weights: Path | None) -> None:
        self.lpips = None if lpips_weights is None else _load(lpips_weights, "LPIPS", _LPIPS)
        self.fid = None if fid_weights is None else _load(fid_weights, "FID", _FID)
        files = {"lpips": lpips_weights, "fid": fid_weights}
        self.sha256 = {name: digest_and_size(file)[0] for name, file in files.items() if file is not None}

    def accumulator(self) -> PerceptualAccumulator:
        """Return a new accumulator for one variant."""
        return PerceptualAccumulator(self)


class PerceptualAccumulator:
    """Accumulator of frames of truth and result. Keeps features and no pictures."""

    def __init__(self, networks: SuppliedNetworks) -> None:
        self._networks = networks
        self._distances: list[Float64] = []
        self._truth: list[Float64] = []
        self._result: list[Float64] = []

    def add(self, truth: UInt8, result: UInt8) -> None:
        """Add T frames of truth and result, uint8 [T, 256, 256, 3] each; T may be 0."""
        if not len(truth):
            return
        if self._networks.lpips is not None:
            a, b = (_features(self._networks.lpips, pictures, _LPIPS) for pictures in (truth, result))
            self._distances.append(np.square(a - b).sum(axis=1))
        if self._networks.fid is not None:
            self._truth.append(_features(self._networks.fid, truth, _FID))
            self._result.append(_features(self._networks.fid, result, _FID))

    def values(self) -> dict[str, float]:
        """Return `lpips` (mean over frames) and `fid`, each if its network was supplied and there were enough frames."""
        metrics: dict[str, float] = {}
        if self._distances:
            metrics["lpips"] = float(np.concatenate(self._distances).mean())
        if self._truth and sum(map(len, self._truth)) >= MIN_FID_FRAMES:
            metrics["fid"] = frechet_distance(np.concatenate(self._truth), np.concatenate(self._result))
        return metrics
