"""Contact sheets and picture files of reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.reports.types import BeforeAfter
from services.common.array_types import UInt8

_GAP: Final = 4
_QUALITY: Final = 92


def write_picture(path: Path, picture: UInt8) -> None:
    """Write a picture, uint8 [H, W, 3] RGB, as PNG or JPEG, whichever the path's suffix names."""
    written, data = cv2.imencode(path.suffix, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not written:
        raise ValueError(f"no encoder for {path.suffix}")
    path.write_bytes(data.tobytes())


def stack_rows(rows: Sequence[UInt8]) -> UInt8:
    """Return a contact sheet: rows of pictures, one under the other.

    Args:
        rows: uint8 [N, H, W, 3] each, one row or more. All rows have the same H and W; N may differ.

    Returns:
        uint8 [rows * (H + 4) - 4, N_max * (W + 4) - 4, 3]; unused places are mid-grey.
    """
    _, height, width, _ = rows[0].shape
    most = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + _GAP) - _GAP, most * (width + _GAP) - _GAP, 3), 128, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + _GAP), c * (width + _GAP)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def before_after_sheet(pairs: Sequence[BeforeAfter]) -> UInt8:
    """Return two rows of pictures: before, and after below. There is one pair or more, and all pictures have one shape."""
    return stack_rows([np.stack([pair.before for pair in pairs]), np.stack([pair.after for pair in pairs])])


def contact_sheet(pictures: Sequence[UInt8], columns: int) -> UInt8:
    """Return one or more pictures of one shape in rows of `columns`. Grey fills up the last row."""
    rows = [np.stack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    return stack_rows(rows)


def reduced(picture: UInt8, height: int) -> UInt8:
    """Return a picture with at most `height` rows, in the same proportions, with even sides."""
    height = min(height, picture.shape[0]) // 2 * 2
    width = max(2, round(picture.shape[1] * height / picture.shape[0]) // 2 * 2)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
