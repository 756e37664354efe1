"""Luma of a made-up face over time: a real portrait that moves, grows brighter and darker, and is noisy."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from gateway.provenance.watermark.embedding import Mark
from gateway.provenance.watermark.search import Part
from gateway.provenance.watermark.signal import projected, responses
from services.common.array_types import Float32, Float64, UInt8


def face_luma(portrait: UInt8, seconds: Float64, mark: Mark | None, *, seed: int = 0) -> Float32:
    """Luma of the render box, projected onto the grid, float32 [N, CELLS], of a portrait, uint8 RGB [512, 512, 3]."""
    random = np.random.default_rng(seed)
    face = cv2.cvtColor(portrait[60:300, 120:360], cv2.COLOR_RGB2GRAY)
    rows = []
    for time in seconds:
        move = np.array([[0.7, 0.0, 2.0 * np.sin(1.7 * time)], [0.0, 0.7, 1.5 * np.cos(2.3 * time)]])
        box = cv2.warpAffine(face, move, (160, 160)).astype(np.float32) * (1.0 + 0.03 * np.sin(0.9 * time))
        if mark is not None:
            box += mark.luma(float(time), 160)
        rows.append(projected(np.rint(box + random.normal(0.0, 3.0, box.shape)).clip(0, 255).astype(np.uint8)))
    return np.array(rows, np.float32)


def parts_of(seconds: Float64, luma: Float32, spans: Sequence[slice] = (slice(None),)) -> list[Part]:
    """Responses of the spans of a face."""
    return [Part(*responses(seconds[span], luma[span])) for span in spans]
