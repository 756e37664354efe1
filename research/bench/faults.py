"""`python -m research.bench.faults CLIPS`: which planted faults of a mouth the figures of an evaluation see.

Faults of five strengths are planted in the second half of real videos. The first half is the person's own video, with which the
figures compare. Faults are drawn on render boxes with the landmarks of the real video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np

from gateway.reports.appearance import OPEN_PX, SHUT_PX, filled
from services.common.array_types import Array, Bool, Float32, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, MOUTH_AREA, mouth_opening

Fault = Callable[[UInt8, Float32, float], UInt8]
"""boxes uint8 [T, 160, 160, 3] RGB, landmarks float32 [T, 478, 2] (box pixels, no NaN), strength -> boxes with the fault."""


def _soft(mask: Bool, sigma: float = 1.0) -> Float32:
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma), np.float32)[..., None]


def _blended(box: UInt8, drawn: Array, weight: Array) -> UInt8:
    return np.asarray(np.clip(np.rint(box * (1.0 - weight) + drawn * weight), 0, 255), np.uint8)


def _inside(mesh: Float32) -> Bool:
    return filled(mesh[list(LIPS_INNER)])


def gold_teeth(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return mouths whose bright parts are more yellow by `strength` units of Lab b*."""
    drawn = []
    for box, mesh in zip(boxes, points, strict=True):
        lab = cv2.cvtColor(box.astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2Lab)
        mask = _inside(mesh)
        if mask.any():
            lab[..., 2] += strength * (lab[..., 0] >= np.percentile(lab[mask, 0], 60))
        drawn.append(_blended(box, cv2.cvtColor(lab, cv2.COLOR_Lab2RGB) * 255.0, _soft(mask)))
    return np.stack(drawn)


def grey_veil(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return mouths whose inside is covered by a grey of opacity `strength`."""
    return np.stack([_blended(b, np.full_like(b, 110), strength * _soft(_inside(m))) for b, m in zip(boxes, points, strict=True)])


def second_nostrils(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return faces with two dark spots between nose and upper lip that take `strength` of the light."""
    rows, columns = np.mgrid[:BOX_SIZE, :BOX_SIZE].astype(np.float32)
    drawn = []
    for box, mesh in zip(boxes, points, strict=True):
        left, right, base, lip = mesh[97], mesh[326], mesh[2], mesh[0]
        width = np.linalg.norm(right - left)
        spots = np.zeros((BOX_SIZE, BOX_SIZE), np.float32)
        for x in (left[0], right[0]):
            y = base[1] + 0.55 * (lip[1] - base[1])
            spots += np.exp(-0.5 * (((columns - x) / (0.18 * width)) ** 2 + ((rows - y) / (0.12 * width)) ** 2))
        drawn.append(_blended(box, np.zeros_like(box), strength * np.minimum(spots, 1.0)[..., None]))
    return np.stack(drawn)


def blurred_inside(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return mouths whose inside is blurred by a Gaussian of `strength` pixels."""
    return np.stack(
        [_blended(b, cv2.GaussianBlur(b, (0, 0), strength), _soft(_inside(m))) for b, m in zip(boxes, points, strict=True)]
    )


def popping_inside(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return mouths of which a share `strength` shows the inside of a random other open mouth of the video."""
    opening = mouth_opening(points[:, list(MOUTH_AREA)])
    (openings,) = np.nonzero(opening >= OPEN_PX)
    generator = np.random.default_rng(5)
    drawn = boxes.copy()
    corners = [78, 13, 308, 14]
    for t in openings[generator.random(len(openings)) < strength]:
        other = int(generator.choice(openings))
        affine = cv2.getPerspectiveTransform(points[other, corners].astype(np.float32), points[t, corners].astype(np.float32))
        drawn[t] = _blended(boxes[t], cv2.warpPerspective(boxes[other], affine, (BOX_SIZE, BOX_SIZE)), _soft(_inside(points[t])))
    return drawn


def shifted_clothing(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return faces below whose jaw everything is moved down by `strength` pixels."""
    rows, columns = np.mgrid[:BOX_SIZE, :BOX_SIZE].astype(np.float32)
    drawn = []
    for box, mesh in zip(boxes, points, strict=True):
        below = np.clip((rows - float(mesh[172, 1])) / 12.0, 0.0, 1.0).astype(np.float32)
        drawn.append(
            cv2.remap(box, columns, rows - np.float32(strength) * below, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )
    return np.stack(drawn)


def soft_seam(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return shut mouths whose lips are blurred by a Gaussian of `strength` pixels about the line between them."""
    opening = mouth_opening(points[:, list(MOUTH_AREA)])
    drawn = boxes.copy()
    for t in np.flatnonzero(opening < SHUT_PX):
        line = filled(points[t, list(LIPS_OUTER)])
        drawn[t] = _blended(boxes[t], cv2.GaussianBlur(boxes[t], (0, 0), strength), _soft(line, 2.0))
    return drawn


def brightness_jump(boxes: UInt8, points: Float32, strength: float) -> UInt8:
    """Return mouths that are lighter by a share `strength` in runs of ten of every fifty frames."""
    drawn = boxes.copy()
    for t in np.flatnonzero(np.arange(len(boxes)) % 50 >= 40):
        drawn[t] = _blended(boxes[t], boxes[t] * (1.0 + strength), _soft(filled(points[t, list(LIPS_OUTER)]), 2.0))
    return drawn


FAULTS: Final[Mapping[str, tuple[Fault, tuple[float, ...]]]] = {
    "gold teeth (b*)": (gold_teeth, (3.0, 6.0, 9.0, 12.0, 18.0)),
    "grey veil (opacity)": (grey_veil, (0.15, 0.3, 0.45, 0.6, 0.75)),
    "second nostrils (darkness)": (second_nostrils, (0.2, 0.35, 0.5, 0.65, 0.8)),
    "blurred inside (px)": (blurred_inside, (1.0, 1.5, 2.0, 3.0, 4.0)),
    "popping (share)": (popping_inside, (0.05, 0.1, 0.2, 0.4, 0.8)),
    "clothing moved (px)": (shifted_clothing, (0.5, 1.0, 1.5, 2.0, 3.0)),
    "soft seam (px)": (soft_seam, (0.7, 1.0, 1.5, 2.0, 3.0)),
    "lighter lips (share)": (brightness_jump, (0.05, 0.1, 0.15, 0.2, 0.3)),
}
"""Each fault with its five strengths."""
