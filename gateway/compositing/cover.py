"""Pixels of a render box that show something before the face: a hand, a microphone, paper. They keep the samples of the footage.

A pixel of a box lies at about the same point of the head in every frame, whatever the mouth does. So the pixel should look as it
does in some frames of the same shot in which the face is free (ViBe, Barnich and Van Droogenbroeck 2011, with the frames of a shot
as samples). A pixel is foreign if fewer than two samples have its colour around it, which allows for mouths and for errors
of the head pose. Hands have the colours of faces, so the tracker's hand landmarks add the pixels of hands.

Of other things with the colours of the face, only a part is foreign, so the covered pixels are not known. Three signs tell: the
face stage, which compares the colours of the face with their mean, finds more; a small foreign region lies wholly inside the face,
though what covers a face comes from beside the face; and the rest of the face has edges where no sample has any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from gateway.compositing.face_parts import fill_lips, inside_jaw
from services.common.array_types import Bool, Float32, Int16, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.hands import hand_mask

LOOK_FRAMES: Final = 24
"""Frames of a shot, evenly spread, that show how the free face looks."""
_LEAST_LOOKS: Final = 8
"""Fewest frames that tell foreign pixels from those of the face."""
_SIDE: Final = BOX_SIZE // 2
"""Side of the pictures that are compared, pixels."""
_TOLERANCE: Final = np.array([16, 5, 5], np.int16)
"""Differences of CIE L, a and b (8-bit units) within which colours are equal. Shadows change the lightness, and hardly the hue."""
_AROUND: Final = np.ones((5, 5), np.uint8)
_JAW_DROPS: Final = np.ones((11, 5), np.uint8)
"""Surroundings of a pixel of the mouth, which may open wider than in any sample."""
_SAMPLES_NEEDED: Final = 2
_SPECKS: Final = 5
_GAPS: Final = np.ones((9, 9), np.uint8)
_LEAST_PX: Final = 16
"""Area under which a foreign region is noise, pixels of the pictures that are compared."""
_STRONGER: Final = (1.25, 6.0)
"""An edge is new if its contrast (L per pixel) exceeds the samples' largest one by this factor and this sum."""
_MOST_EDGES: Final = 0.008
"""Largest share of the rest of the face with new edges. Beside microphones, paper and hands the share was smaller in 99 % of the
frames."""
_RIM: Final = np.ones((7, 7), np.uint8)
"""Box pixels around what covers the face: edges are soft, and mixed with the face behind."""
_LEAST_SHARE: Final = 0.75
"""Least share of the area that the face stage reports as covered that the found cover must contain. Microphones and hands, with
their rims, contain more."""
_SPOT_PX: Final = 2000
"""Area under which a foreign region wholly inside the face is a part of something larger, box pixels: a fifth of the lower face."""
_EDGE: Final = np.ones((3, 3), np.uint8)
_TOP: Final = 44
"""Row of the box above which nothing is dubbed."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceLooks:
    """Looks of one free face in one shot.

    Attributes:
        lowest, highest: int16 [K, 80, 80, 3], CIE Lab: colours that each sample allows at each pixel.
        contrast: float32 [80, 80], L per pixel: the strongest edge that the samples allow at each pixel.
    """

    lowest: Int16
    highest: Int16
    contrast: Float32

    def foreign(self, box: UInt8) -> UInt8:
        """Return 1 where a box does not look like the face, 0 elsewhere, uint8 [160, 160].

        Args:
            box: uint8 [160, 160, 3], RGB. With fewer than eight samples no pixel is foreign.
        """
        if len(self.lowest) < _LEAST_LOOKS:
            return np.zeros((BOX_SIZE, BOX_SIZE), np.uint8)
        colours = _small_lab(box)
        fitting = ((colours >= self.lowest) & (colours <= self.highest)).all(axis=-1).sum(axis=0)
        rough = cv2.medianBlur((fitting < _SAMPLES_NEEDED).astype(np.uint8), _SPECKS)
        contours, _ = cv2.findContours(cv2.morphologyEx(rough, cv2.MORPH_CLOSE, _GAPS), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        whole = np.zeros_like(rough)
        for contour in contours:
            if cv2.contourArea(contour) > _LEAST_PX:
                cv2.drawContours(whole, [contour], -1, (1,), cv2.FILLED)
        return np.asarray(cv2.resize(whole, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_NEAREST), np.uint8)

    def new_edges(self, box: UInt8, rest: UInt8) -> float:
        """Return the share of a part of the face that has edges where the samples have none, 0 to 1.

        Args:
            box: uint8 [160, 160, 3], RGB.
            rest: uint8 [160, 160], 1 in the part.
        """
        small = cv2.resize(rest, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST) > 0
        factor, more = _STRONGER
        new = _contrast(_small_lab(box)) > self.contrast * np.float32(factor) + np.float32(more)
        return float(new[small].mean()) if small.any() else 0.0


def learn_looks(boxes: Sequence[UInt8], mouths: Sequence[Float32]) -> FaceLooks:
    """Return the looks of a face.

    Args:
        boxes: render boxes of frames of one shot in which the face is free, uint8 [160, 160, 3] each, RGB.
        mouths: float32 [59, 2] each, mouth-area landmarks of these frames, box pixels.
    """
    lips = np.zeros((_SIDE, _SIDE), np.uint8)
    for mouth in mouths:
        fill_lips(lips, mouth / 2.0, 1)
    moving = cv2.dilate(lips, _JAW_DROPS) > 0
    pictures = [_small_lab(box) for box in boxes]
    lowest = _around(cv2.erode, pictures, moving)
    highest = _around(cv2.dilate, pictures, moving)
    edges = _around(cv2.dilate, [cv2.merge([_contrast(picture)] * 3) for picture in pictures], moving)
    return FaceLooks(lowest - _TOLERANCE, highest + _TOLERANCE, edges[..., 0].max(axis=0, initial=0).astype(np.float32))


def _around(extreme: Callable[[Any, UInt8], Any], pictures: Sequence[Any], moving: Bool) -> Int16:
    """Return the least or largest values around each pixel of some pictures, int16 [K, 80, 80, 3]."""
    extremes = [np.where(moving[..., None], extreme(picture, _JAW_DROPS), extreme(picture, _AROUND)) for picture in pictures]
    return np.array(extremes, np.int16).reshape(len(pictures), _SIDE, _SIDE, 3)


def _small_lab(box: UInt8) -> Int16:
    small = cv2.resize(box, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2Lab).astype(np.int16)


def _contrast(picture: Int16) -> Float32:
    lightness = picture[..., 0].astype(np.float32)
    across, down = (cv2.Sobel(lightness, cv2.CV_32F, x, 1 - x) for x in (1, 0))
    return np.asarray(cv2.magnitude(across, down) / 4.0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Cover of a face in one frame: a hand, a microphone, paper.

    Attributes:
        pixels: bool [160, 160], pixels of the render box that keep the samples of the footage.
        mouth_share: share of the mouth that is covered, 0 to 1.
        face_share: share of the lower face that `pixels` cover, 0 to 1.
    """

    pixels: Bool
    mouth_share: float
    face_share: float


def cover_of(covered: UInt8, mouth: Float32) -> Cover:
    """Return the cover of pixels of a box, with a rim.

    Args:
        covered: uint8 [160, 160], 1 where something covers the face.
        mouth: float32 [59, 2], mouth-area landmarks of the person's mean mouth in the pose of the frame, box pixels.
    """
    lips, pixels = np.zeros_like(covered), cv2.dilate(covered, _RIM) > 0
    fill_lips(lips, mouth, 1)
    inside = _lower_face(mouth) > 0
    return Cover(
        pixels,
        mouth_share=float(covered[lips > 0].mean()) if lips.any() else 1.0,
        face_share=float(pixels[inside].mean()) if inside.any() else 1.0,
    )


def _lower_face(mouth: Float32) -> UInt8:
    """Return 1 in the face that a dub may change, uint8 [160, 160]."""
    within = np.asarray(cv2.erode(inside_jaw(mouth), _EDGE), np.uint8)
    within[:_TOP] = 0
    return within


def find_cover(
    looks: FaceLooks, box: UInt8, hands: Float32, mouth: Float32, share: float, static: UInt8 | None = None
) -> Cover | None:
    """Return what covers a face in a frame.

    Args:
        looks: of the face in the shot.
        box: the footage's own render box, uint8 [160, 160, 3], RGB.
        hands: float32 [N, 21, 2], landmarks of hands, box pixels.
        mouth: float32 [59, 2], mouth-area landmarks of the person's mean mouth in the pose of the frame, box pixels.
        share: share of the lower face that looks covered to the face stage, 0 to 1 (FaceTrack.covered_share).
        static: uint8 [160, 160], 1 where a static thing covers the face (StaticCover.in_box); None: nowhere.

    Returns:
        The cover; None: nothing covers the face, or the pixels are not known.
    """
    face, things = inside_jaw(mouth), hand_mask(hands, BOX_SIZE)
    hand = things.any()
    if static is not None:
        things |= static
    within = _lower_face(mouth)
    _, regions = cv2.connectedComponents(looks.foreign(box), connectivity=8)
    # The neck below the face moves too. Other regions are changes of what is beside and behind the face.
    before = np.setdiff1d(np.unique(regions[np.maximum.accumulate(within, axis=0) > 0]), [0])
    covered = np.isin(regions, before).astype(np.uint8) | things
    beside = (face == 0) | (things > 0)
    beside[[0, -1]] = beside[:, [0, -1]] = True
    spots = np.setdiff1d(before, regions[beside])
    if not covered.any() or any((regions == spot).sum() < _SPOT_PX for spot in spots):
        return None
    cover = cover_of(covered, mouth)
    if not hand and looks.new_edges(box, np.asarray(within * ~cover.pixels, np.uint8)) > _MOST_EDGES:
        return None
    return cover if cover.face_share >= _LEAST_SHARE * share else None
