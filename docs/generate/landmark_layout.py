"""Draw the 216-point face layout on the mean head: `python docs/generate/landmark_layout.py OUTPUT.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.face.crops import head_template
from services.common.face.landmarks import BROWS, EYES, LOWER_OF_MOUTH, MOUTH_AREA, NOSE, NUM_DENSE_LIPS, UPPER_CONTOUR, lower_face

_ZOOM = 4.0
_MARGIN = 24.0
_PARTS = (("contour", UPPER_CONTOUR), ("brows", BROWS), ("eyes", EYES), ("nose", NOSE))
_COLOURS = {
    "contour": (150, 110, 40),
    "brows": (120, 60, 160),
    "eyes": (60, 130, 60),
    "nose": (30, 120, 200),
    "lips": (40, 40, 210),
    "jaw": (200, 90, 30),
}
"""BGR."""


def _points() -> dict[str, Float32]:
    """Return the points of each part in head space, float32 [P, 3]."""
    head = head_template()
    lower = lower_face(head[list(MOUTH_AREA)])
    parts = {name: head[list(indices)] for name, indices in _PARTS}
    return {**parts, "lips": lower[:NUM_DENSE_LIPS], "jaw": lower[NUM_DENSE_LIPS:]}


def draw() -> UInt8:
    """Return the picture, uint8 [H, W, 3] BGR. Filled points are vertices of the mesh, rings are middles between neighbours."""
    parts = _points()
    every = np.concatenate([*parts.values()])[:, :2]
    low = every.min(axis=0) - _MARGIN
    width, height = np.ceil((every.max(axis=0) + _MARGIN - low) * _ZOOM).astype(int)
    canvas: UInt8 = np.full((height, width + 260, 3), 255, np.uint8)
    added = LOWER_OF_MOUTH.max(axis=1) < 1.0
    rings = {"lips": added[:NUM_DENSE_LIPS], "jaw": added[NUM_DENSE_LIPS:]}
    for name, points in parts.items():
        hollow = rings.get(name, np.zeros(len(points), np.bool_))
        for (x, y), ring in zip((points[:, :2] - low) * _ZOOM, hollow, strict=True):
            centre = (round(float(x)), round(float(y)))
            cv2.circle(canvas, centre, 3, _COLOURS[name], 1 if ring else -1, cv2.LINE_AA)
    rows = [f"{name}: {len(points)}" for name, points in parts.items()]
    for row, text in enumerate(["upper: 99 pose landmarks", *rows[:4], "lower: 117 from the 59 on the wire", *rows[4:]]):
        colour = _COLOURS.get(text.split(":")[0], (0, 0, 0))
        cv2.putText(canvas, text, (width - 30, 60 + 28 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    return canvas


def main() -> int:
    """Write the picture, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="PNG to write.")
    cv2.imwrite(str(parser.parse_args().output), draw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
