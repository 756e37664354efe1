"""Parts of a face in a render box, on drawn landmarks."""

from __future__ import annotations

import numpy as np

from gateway.compositing.face_parts import fill_lips, filled_polygon, inside_jaw
from services.common.face.crops import BOX_SIZE
from tests.unit.compositing.test_movable import CHIN, mouth


def test_lips_are_filled_with_margin() -> None:
    """The hull of the lips gets the value, and so does the margin around the hull."""
    narrow, wide = np.zeros((2, BOX_SIZE, BOX_SIZE), np.uint8)
    fill_lips(narrow, mouth(), 1)
    fill_lips(wide, mouth(), 1, margin_px=4)
    columns, rows = np.flatnonzero(narrow.any(axis=0)), np.flatnonzero(narrow.any(axis=1))
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (58, 102, 58, 74)
    wider = np.flatnonzero(wide.any(axis=0))
    assert (wider[0], wider[-1]) == (53, 107)
    assert wide[narrow > 0].all()


def test_jaw_ends_at_chin() -> None:
    """Pixels above the jaw's ends are inside up to the edge of the box; pixels below the chin are outside."""
    inside = inside_jaw(mouth())
    rows = np.flatnonzero(inside[:, 80])
    assert (rows[0], rows[-1]) == (0, CHIN)


def test_polygon_counts_parts_of_pixels() -> None:
    """A polygon that ends between two pixels ends at the pixel next to it."""
    inside = filled_polygon(np.array([[10.4, 10.0], [20.4, 10.0], [20.4, 20.0], [10.4, 20.0]]))
    assert np.flatnonzero(inside[15]).tolist() == list(range(10, 21))
