"""The landmark basis of training clips, and the landmark basis that a training builds on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from services.common.errors import InvalidRequest
from services.common.store.tensor_bytes import NamedArrays
from services.motion.basis import LandmarkBasis, fit_basis
from services.motion.models import WEIGHTS
from services.motion.runtime import read_constants
from services.motion.style import measure_mouth
from services.motion.train.clips import Clips
from services.motion.train.run_files import read_best
from services.training.networks import Opening

STYLE_BASIS: Final = "style_basis"
"""Key of a run's metadata with the digest of the landmark basis of the style."""
SHARED_CONSTANTS: Final = "motion_constants.safetensors"
"""File of the stage's weights that holds the landmark basis of the style."""


def basis_of(clips: Clips, num_coefficients: int) -> LandmarkBasis:
    """Return the landmark basis of the training speakers, each clip about its own mean.

    Args:
        clips: training clips. All of them are read.
        num_coefficients: K, number of components.
    """
    groups = clips.by_speaker().values()
    offsets = [
        np.concatenate([clip.mouth_landmarks[clip.usable] - clip.mouth_landmarks[clip.usable].mean(0) for clip in group])
        for group in groups
    ]
    basis = fit_basis(offsets, num_coefficients)
    # Two passes: the spread of a clip is measured along the basis, then the mean over speakers is the typical spread.
    spreads = [
        np.mean([measure_mouth(clip.mouth_landmarks[clip.usable], basis).spread for clip in group], axis=0) for group in groups
    ]
    return replace(basis, typical_spread=np.mean(spreads, axis=0).astype(np.float32))


def style_basis(opening: Opening, network: str) -> LandmarkBasis:
    """Return the landmark basis of the style that a training builds on: of a run if one is given, else the committed one.

    Args:
        opening: what the training is opened with.
        network: name of the network whose training fits the basis.

    Raises:
        InvalidRequest: the folder that was given holds no run of this network.
    """
    run = opening.run_of(network)
    return committed_basis() if run is None else LandmarkBasis.named(read_best(run, network))


def committed_basis() -> LandmarkBasis:
    """Return the landmark basis of the style that comes with the stage."""
    return LandmarkBasis.named(read_constants(WEIGHTS / SHARED_CONSTANTS))


def basis_digest(basis: LandmarkBasis) -> str:
    """Return the SHA-256 of a landmark basis, hexadecimal."""
    arrays = basis.arrays()
    return hashlib.sha256(b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))).hexdigest()


def check_style_basis(kept: NamedArrays, weights: Path, network: str) -> None:
    """Check that a folder of weights holds the landmark basis that a run was trained on.

    The run's network answers in units of the person's spread, and the spread is measured in the folder's basis.

    Args:
        kept: file of the run, whose metadata hold the digest of the basis.
        weights: folder of weights.
        network: name of the run's network.

    Raises:
        ModelNotFound: the folder has no constants.
        InvalidRequest: the folder holds another basis.
    """
    held = LandmarkBasis.named(read_constants(weights / SHARED_CONSTANTS))
    if kept.metadata.get(STYLE_BASIS) != basis_digest(held):
        raise InvalidRequest(
            f"{network} was trained on another landmark basis than the basis in {weights}; export the run that the training was "
            f"built on (--using) into this folder first, or train {network} again",
            field="run",
        )
