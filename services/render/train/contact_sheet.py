"""Contact sheets: pictures below and beside each other in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from services.common.array_types import UInt8


def draw_sheet(path: Path, columns: Sequence[Sequence[UInt8]]) -> None:
    """Write a contact sheet. A missing folder is created.

    Args:
        path: the file, with the ending of its format, such as .png.
        columns: one column per example: its pictures from top to bottom, uint8 [H, W, 3], RGB.
    """
    sheet = np.hstack([np.vstack(list(column)) for column in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
