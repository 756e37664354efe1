"""Contact sheets and picture files of reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.reports.types import BeforeAfter, Uint8

_GAP: Final = 4
_QUALITY: Final = 92


def write_picture(path: Path, picture: Uint8) -> None:
    """Write uint8 [H, W, 3] RGB as PNG or JPEG, by the path's suffix."""
    written, data = cv2.imencode(path.suffix, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not written:
        raise ValueError(f"no encoder for {path.suffix}")
    path.write_bytes(data.tobytes())


def stack_rows(rows: Sequence[Uint8]) -> Uint8:
    """A contact sheet: one row of pictures under the other.

    Args:
        rows: uint8 [N, H, W, 3] each, at least one; H and W are the same in all, N may differ.

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


def before_after_sheet(pairs: Sequence[BeforeAfter]) -> Uint8:
    """Two rows: before, and after under it; at least one pair, all of one shape."""
    return stack_rows([np.stack([pair.before for pair in pairs]), np.stack([pair.after for pair in pairs])])


def contact_sheet(pictures: Sequence[Uint8], columns: int) -> Uint8:
    """Pictures of one shape in rows of `columns`, the last one filled up with grey; at least one."""
    rows = [np.stack(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    return stack_rows(rows)


def reduced(picture: Uint8, height: int) -> Uint8:
    """A picture made `height` rows high where it is higher, its proportions kept; even sides."""
    height = min(height, picture.shape[0]) // 2 * 2
    width = max(2, round(picture.shape[1] * height / picture.shape[0]) // 2 * 2)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
