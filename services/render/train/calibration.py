"""Inputs of a renderer's network that a run keeps, to calibrate its int8 file with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import UInt8
from services.common.errors import InvalidRequest

_FILE: Final = "calibration.npy"


def write_calibration(run: Path, pictures: UInt8) -> None:
    """Write inputs, uint8 [N, 160, 160, C], into the folder of a run."""
    partial = run / f".{_FILE}.partial"
    with partial.open("wb") as stream:
        np.save(stream, pictures)
    os.replace(partial, run / _FILE)


def read_calibration(run: Path) -> UInt8:
    """Return the inputs that a run kept.

    Raises:
        InvalidRequest: the run did not come to its end.
    """
    if not (run / _FILE).is_file():
        raise InvalidRequest(f"{run} holds a run that is not complete: go on with it by `dubstage train --resume`", field="run")
    pictures: UInt8 = np.load(run / _FILE)
    return pictures
