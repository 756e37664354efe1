"""Rendered mouths of one window of frames, and the mouth of one frame, ready to be composited."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.compositing.detail import skin_under
from gateway.compositing.jaw import jaw_shift
from services.common.array_types import Float32, Int64, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """The rendered mouth of one frame.

    Attributes:
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        skin: uint8 [160, 160], the mask without lips, old and new (skin_under).
        detail: uint8 [160 S, 160 S], detail at S pixels per box pixel (box_with_detail); S = 0: no detail.
        shift: float32 [160, 160, 2], how the footage is moved under and around the box, box pixels (jaw_shift).
        strength: factor of mask and shift, 0 to 1.
    """

    box: UInt8
    mask: UInt8
    skin: UInt8
    detail: UInt8
    shift: Float32
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class RenderedWindow:
    """Mouths of the rendered frames of a window.

    Attributes:
        frame: int64 [N], indices in the film.
        box: uint8 [N, 160, 160, 3], finished render boxes: colour-matched and blended, RGB.
        mask: uint8 [N, 160, 160], weight of the box; 255 = the box, 0 = the footage.
        fitting_error: float32 [N], of the texture stage's warp; 0 where nothing was warped.
        bending_energy: float32 [N], of the texture stage's warp; 0 where nothing was warped.
        landmarks: float32 [N, 59, 2], wanted mouth-area landmarks, box pixels.
        filmed: float32 [N, 59, 2], the footage's own mouth-area landmarks, box pixels.
        detail: uint8 [N, 160 S, 160 S], detail of the mouths at S pixels per box pixel (mouth_detail.py); S = 0: no detail.
    """

    frame: Int64
    box: UInt8
    mask: UInt8
    fitting_error: Float32
    bending_energy: Float32
    landmarks: Float32
    filmed: Float32
    detail: UInt8

    def mouth(self, place: int, strength: float = 1.0) -> Mouth:
        """Return the mouth of the frame at a place, to be composited with a factor of the mask."""
        return Mouth(self.box[place], self.mask[place], self.skin(place), self.detail[place], self.shift(place), strength)

    def skin(self, place: int) -> UInt8:
        """Return the mask of the frame at a place without the filmed lips and the wanted lips, uint8 [160, 160]."""
        return skin_under(self.mask[place], self.filmed[place], self.landmarks[place])

    def shift(self, place: int) -> Float32:
        """Return how the footage of the frame at a place is moved under and around the box, float32 [160, 160, 2], box pixels."""
        return jaw_shift(self.filmed[place], self.landmarks[place], self.mask[place])
