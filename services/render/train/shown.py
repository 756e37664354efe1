"""Drawn faces beside the clip that they were drawn for, and their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.common.array_types import UInt8
from services.render.colour_match import match_colour
from services.render.pairs import BASE, MASK
from services.render.train.held_out import HeldOut, blended
from services.render.train.metrics import frame_quality, mean_quality, mouth_slices

Faces = list[UInt8]
"""Drawn faces, uint8 [160, 160, 3] each, one per pair of a clip."""


class Shown(NamedTuple):
    """Faces beside the clip that they were drawn for."""

    clip: HeldOut
    faces: Faces


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one way to draw a clip.

    Attributes:
        psnr_db: PSNR in the mouth box, RGB, decibels.
        ssim: SSIM in the mouth box.
        sharpness_ratio: sharpness in the mouth box; 1 = as sharp as the footage.
        flicker_ratio: change from frame to frame over that of the footage, in the quarter of the steps where the footage changes
            least: there no movement hides flicker.
    """

    psnr_db: float
    ssim: float
    sharpness_ratio: float
    flicker_ratio: float

    def __str__(self) -> str:
        """Return the figures as cells of a table."""
        return f"{self.psnr_db:.2f} dB  {self.ssim:.4f}  sharp {self.sharpness_ratio:.2f}  flicker {self.flicker_ratio:.2f}"


def base_faces(clip: HeldOut) -> Shown:
    """Return the pictures that the network starts from as faces."""
    return Shown(clip, [pair.picture[..., BASE] for pair in clip.pairs])


def still_mouth(clip: HeldOut) -> Shown:
    """Return faces that all show the bank's most ordinary mouth, in the light of each frame."""
    medoid = clip.bank.boxes[clip.bank.medoid]
    return Shown(clip, [match_colour(medoid, pair.target, pair.picture[..., MASK]) for pair in clip.pairs])


def spread_places(clip: HeldOut) -> range:
    """Return the places of about eight of a clip's pairs, evenly spread, for a contact sheet."""
    return range(0, len(clip.pairs), max(1, len(clip.pairs) // 8))


def figures(shown: Shown) -> Row:
    """Return the figures of faces that were drawn for consecutive frames of a clip."""
    clip = shown.clip
    made = [blended(pair, np.asarray(face, np.float32)) for pair, face in zip(clip.pairs, shown.faces, strict=True)]
    quality = mean_quality(
        [frame_quality(got, pair.target, points) for got, pair, points in zip(made, clip.pairs, clip.landmarks, strict=True)]
    )
    steps = []
    for place in range(1, len(made)):
        part = mouth_slices(clip.landmarks[place])
        pairs = ((made[place], made[place - 1]), (clip.pairs[place].target, clip.pairs[place - 1].target))
        steps.append([float(np.abs(new[part].astype(float) - old[part]).mean()) for new, old in pairs])
    changes = np.array(sorted(steps, key=lambda step: step[1])[: max(1, len(steps) // 4)])
    return Row(quality.psnr_db, quality.ssim, quality.sharpness_ratio, float(changes[:, 0].mean() / changes[:, 1].mean()))
