"""Figures for what eyes see of a mouth: discoloured teeth, second nostrils, a dull or popping inside, soft lips, moved clothing.

PSNR, SSIM and sharpness do not see these faults. Each figure here compares the frames of a dub with the person's own video. All
pictures are render boxes (docs/coordinates.md) in the head pose of the video that is dubbed, so a dub and its video have one pixel
grid. research/evaluation/planted_faults.py plants faults of five strengths and counts which of them each figure sees.

Every measured brightness is divided by the luma of the cheeks in the video that is dubbed, and multiplied by SKIN_LIGHT. So the
exposure of the video changes no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

import cv2
import numpy as np

from gateway.compositing.face_parts import filled_polygon
from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import (
    CHEEKS,
    FACE_OVAL,
    INNER_LOWER_MIDDLE,
    INNER_UPPER_MIDDLE,
    LIPS_INNER,
    LIPS_OUTER,
    MOUTH_AREA,
    mouth_opening,
)
from services.common.face.mouth_detail import LUMA_WEIGHTS

SKIN_LIGHT: Final = 140.0
"""Luma of the cheeks after the normalisation of the exposure, 0 to 255."""
OPEN_PX: Final = 4.0
"""Opening from which on a mouth shows an inside, box pixels."""
SHUT_PX: Final = 2.0
"""Opening below which lips count as shut, box pixels."""
MIN_FRAMES: Final = 25
"""Fewest frames of the person's own video that a figure is compared with."""
MIN_INSIDE_PX: Final = 40
"""Fewest pixels between the lips on which colour and contrast are measured."""
BRIGHT_SHARE: Final = 0.15
"""Share of the pixels between the lips that count as the brightest."""
MOST_TINT: Final = 3.5
"""Largest Mahalanobis distance of a colour that the person's own video shows. 97 % of held-out real frames lie below."""
MORE_SHADE: Final = 0.06
"""How much darker than 95 % of the person's own frames a spot under the nose must be before the frame alarms."""
LOW_CONTRAST_SHARE: Final = 0.1
"""Share of the person's own open frames whose contrast counts as low."""

_UNDER_NOSE: Final[tuple[int, ...]] = (97, 2, 326)
_OVER_LIP: Final[tuple[int, ...]] = (267, 0, 37)
_UNDER_NOSE_PX: Final = (0.0, 5.0)
_OVER_LIP_PX: Final = (0.0, -2.0)
_MIN_SKIN_PX: Final = 20
_PATCH: Final = 3
_SEAM_PX: Final = 8
_DETAIL_SIGMA: Final = 1.5
_LAB_NOISE: Final = np.diag([4.0, 1.0, 1.0])
"""Variance of Lab that is added to the person's own, so that a video with little variety does not alarm at noise."""
_MOUTH_ROWS: Final = slice(24, 104)
_MOUTH_COLUMNS: Final = slice(28, 132)
"""The mouth box of an evaluation, 104 x 80 box pixels."""
_GRID: Final = (6, 5)
_SCALES: Final = 3
_CELLS: Final = 3 * _GRID[0] * _GRID[1]
NUM_FEATURES: Final = (2 + _SCALES) * _CELLS
CLOTHING_MOVED_PX: Final = 1.0
"""Movement from which on clothing counts as moved, box pixels."""
CLOTHING_SHARE: Final = 0.15
"""Share of the clothing's textured pixels that must move before the frame alarms."""
MIN_CLOTHING_PX: Final = 60
"""Fewest textured pixels of clothing in a frame that is measured."""
_OTHER_HUE: Final = 0.06
"""Least distance of the chromaticities (r, g, b) / (r + g + b) of clothing and cheeks."""
_SHADE_OFFSETS: Final = (0.0, 14.0, 28.0)
"""8-bit levels that are added to a pixel before its chromaticity is compared: a camera makes skin in the shade more saturated."""
_DARKER_THAN_SHADE: Final = 0.22
"""Luma below which a pixel is no skin in the shade, as a share of the luma of the cheeks."""
_TEXTURE: Final = 400.0
"""Least mean squared Sobel gradient of a pixel whose movement can be measured."""
_CHANGED: Final = 2
"""Least mean difference of the luma around a pixel that moved, levels."""


@dataclass(frozen=True, slots=True)
class MouthAppearance:
    """Measurements of T frames of one face. NaN: not measured in the frame.

    Attributes:
        opening: float32 [T], opening of the mouth, box pixels.
        bright: float32 [T, 3], mean Lab colour (CIE 1976, D65) of the brightest 15 % between the lips; open mouths only.
        contrast: float32 [T], root mean square of the luma between the lips less its Gaussian blur of 1.5 px; open mouths only.
        shade: float32 [T], how much darker than the median the darkest 3 % of the skin between nose and upper lip are, 0 to 1.
        change: float32 [T], mean |x(t) - x(t - 1)| of the luma of the pixels between the lips in both frames; open mouths only.
        seam: float32 [T], steepest luma across the line between the lips, per pixel, mean of five positions; shut mouths only.
        lip_light: float32 [T], mean luma of both lips.
        features: float32 [T, 450], colours and texture of the mouth box (mouth_features).
    """

    opening: Float32
    bright: Float32
    contrast: Float32
    shade: Float32
    change: Float32
    seam: Float32
    lip_light: Float32
    features: Float32 = field(repr=False)

    @property
    def lip_step(self) -> Float32:
        """Change of the lips' luma from the frame before, float32 [T]."""
        return np.abs(np.diff(self.lip_light, prepend=np.float32(np.nan)))


def joined(pieces: Sequence[MouthAppearance]) -> MouthAppearance:
    """Return the appearance of consecutive pieces, at least one."""
    return MouthAppearance(
        **{each.name: np.concatenate([getattr(piece, each.name) for piece in pieces]) for each in fields(MouthAppearance)}
    )


def skin_light(boxes: UInt8, points: Float32) -> Float32:
    """Return the luma of the cheeks of each frame, float32 [T], 0 to 255; NaN where no face is tracked.

    Args:
        boxes: uint8 [T, 160, 160, 3], RGB.
        points: float32 [T, 478, 2], box pixels, NaN rows where not tracked.
    """
    colours = [_cheek_colour(box, mesh) for box, mesh in zip(boxes, points, strict=True)]
    return np.asarray(np.array(colours, np.float32).reshape(-1, 3) @ LUMA_WEIGHTS, np.float32)


def _cheek_colour(box: Array, mesh: Float32) -> Float32:
    """Return the median colour of the cheeks, float32 [3]; NaN: no face is tracked, or no cheek lies in the box."""
    patches: list[Array] = []
    if np.isfinite(mesh[0, 0]):
        cheeks = np.rint(mesh[list(CHEEKS)]).astype(int)
        shown = ((cheeks >= _PATCH) & (cheeks < BOX_SIZE - _PATCH)).all(axis=1)
        patches = [box[y - _PATCH : y + _PATCH + 1, x - _PATCH : x + _PATCH + 1].reshape(-1, 3) for x, y in cheeks[shown]]
    return np.asarray(np.median(np.concatenate(patches), axis=0) if patches else np.full(3, np.nan), np.float32)


def filled(points: Float32) -> Bool:
    """Return the pixels of a polygon, float32 [N, 2] box pixels -> bool [160, 160]."""
    return filled_polygon(points).astype(np.bool_)


def mouth_appearance(boxes: UInt8, points: Float32, light: Float32) -> MouthAppearance:
    """Return what is measured of consecutive frames of one face.

    Args:
        boxes: uint8 [T, 160, 160, 3], RGB.
        points: float32 [T, 478, 2], landmarks tracked in these boxes, box pixels, NaN rows where not tracked.
        light: float32 [T], luma of the cheeks (skin_light) in the video that was dubbed; NaN or 0: the frame is not measured.
    """
    length = len(boxes)
    opening = np.asarray(mouth_opening(points[:, list(MOUTH_AREA)]), np.float32)
    rows = {name: np.full(length, np.nan, np.float32) for name in ("contrast", "shade", "change", "seam", "lip_light")}
    bright = np.full((length, 3), np.nan, np.float32)
    features = np.full((length, NUM_FEATURES), np.nan, np.float32)
    before: tuple[Float32, Bool] | None = None
    for t in range(length):
        before, inside_before = None, before
        if not (np.isfinite(opening[t]) and light[t] > 0.0):
            opening[t] = np.nan
            continue
        mesh = points[t]
        gain = np.float32(SKIN_LIGHT / light[t])
        luma = np.asarray((boxes[t].astype(np.float32) @ LUMA_WEIGHTS) * gain, np.float32)
        outer, inner = filled(mesh[list(LIPS_OUTER)]), filled(mesh[list(LIPS_INNER)])
        lips = outer & ~inner
        if lips.any():
            rows["lip_light"][t] = luma[lips].mean()
        rows["shade"][t] = _shade(luma, mesh)
        features[t] = _features(boxes[t], gain)
        if opening[t] < SHUT_PX:
            rows["seam"][t] = _seam(luma, mesh)
        if opening[t] >= OPEN_PX and inner.sum() >= MIN_INSIDE_PX:
            rows["contrast"][t] = _contrast(luma, inner)
            bright[t] = _bright(boxes[t], inner, gain)
            if inside_before is not None and (both := inner & inside_before[1]).sum() >= MIN_INSIDE_PX:
                rows["change"][t] = np.abs(luma[both] - inside_before[0][both]).mean()
            before = luma, inner
    return MouthAppearance(opening=opening, bright=bright, features=features, **rows)


def _bright(box: UInt8, inner: Bool, gain: np.float32) -> Float32:
    pixels = np.clip(box[inner].astype(np.float32) * (gain / np.float32(255.0)), 0.0, 1.0)
    lab = np.asarray(cv2.cvtColor(pixels[None], cv2.COLOR_RGB2Lab)[0], np.float32)
    count = max(1, round(BRIGHT_SHARE * len(lab)))
    return np.asarray(lab[np.argsort(lab[:, 0], kind="stable")[-count:]].mean(axis=0), np.float32)


def _contrast(luma: Float32, inner: Bool) -> float:
    # The border of the lips is no contrast of the inside.
    core = cv2.erode(inner.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    if core.sum() < MIN_INSIDE_PX // 2:
        return float("nan")
    margin = round(4 * _DETAIL_SIGMA)
    rows, columns = (slice(max(0, int(at.min()) - margin), int(at.max()) + margin + 1) for at in np.nonzero(core))
    part = luma[rows, columns]
    band = part - cv2.GaussianBlur(part, (0, 0), _DETAIL_SIGMA)
    return float(np.sqrt(np.square(band[core[rows, columns]]).mean()))


def _shade(luma: Float32, mesh: Float32) -> float:
    outline = np.concatenate([mesh[list(_UNDER_NOSE)] + _UNDER_NOSE_PX, mesh[list(_OVER_LIP)] + _OVER_LIP_PX])
    skin = luma[filled(outline.astype(np.float32))]
    if len(skin) < _MIN_SKIN_PX:
        return float("nan")
    dark, median = np.percentile(skin, (3, 50))
    return float(1.0 - dark / max(float(median), 1.0))


def _seam(luma: Float32, mesh: Float32) -> float:
    middle = (mesh[list(INNER_UPPER_MIDDLE)] + mesh[list(INNER_LOWER_MIDDLE)]) / 2
    rows = middle[:, 1:] + np.arange(-_SEAM_PX, _SEAM_PX + 1)
    columns = np.broadcast_to(middle[:, :1], rows.shape)
    profile = cv2.remap(
        luma, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return float(np.abs(np.diff(profile, axis=1)).max(axis=1).mean())


def _features(box: UInt8, gain: np.float32) -> Float32:
    """Return means, deviations, and energies of three frequency bands of Lab in 6 x 5 cells of the mouth box, float32 [450]."""
    pixels = np.clip(box[_MOUTH_ROWS, _MOUTH_COLUMNS].astype(np.float32) * (gain / np.float32(255.0)), 0.0, 1.0)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2Lab)
    mean = _cells(lab)
    parts = [mean, np.sqrt(np.maximum(_cells(lab * lab) - mean * mean, 0.0))]
    for _ in range(_SCALES):
        low = cv2.GaussianBlur(lab, (0, 0), 1.2)
        parts.append(_cells(np.abs(lab - low)))
        lab = cv2.resize(low, (lab.shape[1] // 2, lab.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.concatenate([part.ravel() for part in parts])


def _cells(picture: Array) -> Float32:
    return np.asarray(cv2.resize(picture, _GRID, interpolation=cv2.INTER_AREA), np.float32)


def kernel_distance(own: Float32, features: Float32) -> float:
    """Return the squared maximum mean discrepancy of two sets of mouths, unbiased; 0 if both come from one distribution.

    Binkowski et al. 2018 ("Demystifying MMD GANs"), Eq. 4, with their kernel (x.y / d + 1)^3. Features of hand replace
    Inception's. Only values against one set of own mouths can be compared: they rank renderers on one clip.

    Args:
        own: float32 [N, 450], features of the person's own video; rows with NaN are left out.
        features: float32 [M, 450], features of a dub.

    Returns:
        the distance; NaN: one set has fewer than two mouths.
    """
    filmed, drawn = (rows[np.isfinite(rows).all(axis=1)].astype(np.float64) for rows in (own, features))
    if min(len(filmed), len(drawn)) < 2:
        return float("nan")
    # Means, deviations and bands weigh the same.
    groups = np.array_split(filmed.std(axis=0), [_CELLS, 2 * _CELLS])
    scale = np.concatenate([np.full(len(group), max(float(group.mean()), 1e-6)) for group in groups])
    centre = filmed.mean(axis=0)
    a, b = (filmed - centre) / scale, (drawn - centre) / scale
    spread = float(np.square(a).sum(axis=1).mean())
    within = []
    for each in (a, b):
        kernel = (each @ each.T / spread + 1.0) ** 3
        within.append((kernel.sum() - np.trace(kernel)) / (len(each) * (len(each) - 1)))
    between = (a @ b.T / spread + 1.0) ** 3
    return float(sum(within) - 2.0 * between.mean())


@dataclass(frozen=True, slots=True)
class OwnMouth:
    """Reference values of a person's own mouth. NaN and None: the person's own video shows too little.

    Attributes:
        bright_mean: float64 [3], Lab colour of the brightest part of the inside.
        bright_inverse: float64 [3, 3], inverse covariance of the colour; None: the colour is not known.
        low_contrast: contrast below which a tenth of the person's own open mouths lie.
        most_shade: shade above which a frame alarms.
        features: float32 [N, 450], features of the person's own frames.
    """

    bright_mean: Float64
    bright_inverse: Float64 | None
    low_contrast: float
    most_shade: float
    features: Float32 = field(repr=False)

    @classmethod
    def of(cls, seen: MouthAppearance) -> OwnMouth:
        """Return what frames of the person's own video tell of the mouth."""
        bright = seen.bright[np.isfinite(seen.bright).all(axis=1)].astype(np.float64)
        contrast, shade = (values[np.isfinite(values)] for values in (seen.contrast, seen.shade))
        enough = len(bright) >= MIN_FRAMES
        return cls(
            bright_mean=bright.mean(axis=0) if enough else np.full(3, np.nan),
            bright_inverse=np.asarray(np.linalg.inv(np.cov(bright.T) + _LAB_NOISE), np.float64) if enough else None,
            low_contrast=float(np.quantile(contrast, LOW_CONTRAST_SHARE)) if len(contrast) >= MIN_FRAMES else float("nan"),
            most_shade=float(np.quantile(shade, 0.95)) + MORE_SHADE if len(shade) >= MIN_FRAMES else float("nan"),
            features=seen.features,
        )

    def tinted(self, seen: MouthAppearance) -> Float32:
        """Return 1 for frames whose teeth have a colour that the person's own do not have, otherwise 0; NaN: not measured."""
        if self.bright_inverse is None:
            return np.full(len(seen.opening), np.nan, np.float32)
        apart = seen.bright.astype(np.float64) - self.bright_mean
        distance = np.sqrt(np.einsum("ti,ij,tj->t", apart, self.bright_inverse, apart))
        return _beyond(distance, distance > MOST_TINT)

    def shaded(self, seen: MouthAppearance) -> Float32:
        """Return 1 for frames with a dark place between nose and upper lip, such as second nostrils, otherwise 0; NaN: unknown."""
        return _beyond(seen.shade + self.most_shade, seen.shade > self.most_shade)

    def dull(self, seen: MouthAppearance) -> Float32:
        """Return 1 for open mouths whose inside has low contrast for the person, otherwise 0; NaN: not measured."""
        return _beyond(seen.contrast + self.low_contrast, seen.contrast < self.low_contrast)


def _beyond(values: Array, beyond: Bool) -> Float32:
    return np.where(np.isfinite(values), beyond.astype(np.float32), np.float32(np.nan))


def clothing_moved(video: UInt8, dub: UInt8, points: Float32) -> Float32:
    """Return which share of the clothing moves by more than a pixel against the video, float32 [T]; NaN: too little clothing shows.

    Clothing is what lies outside of the face, has another colour than the cheeks, and has texture. Hair beside the jaw counts too.
    The movement is dense optical flow (DIS: Kroeger et al. 2016).

    Args:
        video, dub: uint8 [T, 160, 160, 3], RGB: the same frames before and after the dub, in the head pose of the video.
        points: float32 [T, 478, 2], landmarks of the video, box pixels, NaN rows where not tracked.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    shares = np.full(len(video), np.nan, np.float32)
    for t, (before, after, mesh) in enumerate(zip(video, dub, points, strict=True)):
        if not np.isfinite(mesh[0, 0]):
            continue
        luma, dubbed = (cv2.cvtColor(box, cv2.COLOR_RGB2GRAY) for box in (before, after))
        clothing = _clothing(before, luma, mesh)
        if clothing.sum() >= MIN_CLOTHING_PX:
            right, down = cv2.split(flow.calc(luma, dubbed, None))  # type: ignore[call-overload]
            moved = np.hypot(right, down)
            # Flow spreads into pixels that rest.
            moved[cv2.blur(cv2.absdiff(luma, dubbed), (5, 5)) < _CHANGED] = 0.0
            shares[t] = (moved[clothing] > CLOTHING_MOVED_PX).mean()
    return shares


def _clothing(box: UInt8, luma: Array, mesh: Float32) -> Bool:
    # The jaw's shadow lies under the oval of the face.
    face = cv2.dilate(filled_polygon(mesh[list(FACE_OVAL)]), np.ones((17, 17), np.uint8))
    colours = cv2.split(cv2.GaussianBlur(box.astype(np.float32), (0, 0), 1.0))
    cheeks = _cheek_colour(box, mesh)
    # Skin in the shade is darker than the cheeks by a factor and an offset.
    skin = cheeks / max(float(cheeks.sum()), 1.0)
    hue = np.ones(luma.shape, np.bool_)
    for offset in _SHADE_OFFSETS:
        red, green, blue = (plane + np.float32(offset) for plane in colours)
        light = np.maximum(red + green + blue, np.float32(1.0))
        apart = sum(np.square(plane / light - of_skin) for plane, of_skin in zip((red, green, blue), skin, strict=True))
        hue &= apart > _OTHER_HUE**2
    shown = sum(weight * plane for weight, plane in zip(LUMA_WEIGHTS, colours, strict=True))
    other = (hue | (shown < _DARKER_THAN_SHADE * (cheeks @ LUMA_WEIGHTS))) & (face == 0)
    # The border of the skin moves with the skin.
    other = cv2.erode(other.astype(np.uint8), np.ones((9, 9), np.uint8))
    slope = np.square(cv2.Sobel(luma, cv2.CV_32F, 1, 0)) + np.square(cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    return np.asarray((other > 0) & (cv2.blur(slope * other, (5, 5)) > _TEXTURE), np.bool_)


@dataclass(frozen=True, slots=True)
class AppearanceMetrics:
    """Figures of a dub for what eyes see. NaN: the dub or the person's own video shows too little.

    Attributes:
        tint_alarms: share of the open mouths whose teeth have a colour that the person's own do not have.
        nostril_alarms: share of the frames with a dark place between nose and upper lip, such as second nostrils.
        low_contrast: share of the open mouths whose inside has low contrast, less the share in the person's own video.
        popping: change of the inside from frame to frame, over the person's own; 1: as calm as the person's own.
        seam_sharpness: steepness of the line between shut lips, over the person's own; below 1 the lips are soft.
        lip_jump: largest change of the lips' brightness from frame to frame, over the person's own.
        clothing_moved: share of the frames in which clothing beside or below the jaw moves by more than a pixel.
        mouth_distance: kernel distance of the mouths from the person's own (kernel_distance); ranks renderers on one video only.
        face_distance: distance of the face embeddings of dub and video; 0.43 and more may be another person.
    """

    tint_alarms: float
    nostril_alarms: float
    low_contrast: float
    popping: float
    seam_sharpness: float
    lip_jump: float
    clothing_moved: float
    mouth_distance: float
    face_distance: float


def appearance_metrics(video: MouthAppearance, dub: MouthAppearance, moved: Float32, face_distance: float) -> AppearanceMetrics:
    """Return the figures of a dub against the person's own video.

    Args:
        video: frames of the person's own video: those that were dubbed.
        dub: T frames of the dub.
        moved: float32 [T], as clothing_moved returns it.
        face_distance: distance of the mean face embeddings; NaN: not measured.
    """
    own = OwnMouth.of(video)
    return AppearanceMetrics(
        tint_alarms=_mean(own.tinted(dub)),
        nostril_alarms=_mean(own.shaded(dub)),
        low_contrast=_mean(own.dull(dub)) - _mean(own.dull(video)),
        popping=_ratio(_mean(dub.change), _mean(video.change)),
        seam_sharpness=_ratio(_mean(dub.seam), _mean(video.seam)),
        lip_jump=_ratio(_largest(dub.lip_step), _largest(video.lip_step)),
        clothing_moved=_mean(clothing_alarms(moved)),
        mouth_distance=kernel_distance(own.features, dub.features),
        face_distance=face_distance,
    )


def clothing_alarms(moved: Float32) -> Float32:
    """Return 1 for frames with moved clothing, otherwise 0; NaN: not measured. The argument is as clothing_moved returns it."""
    return _beyond(moved, moved > CLOTHING_SHARE)


def _mean(values: Float32) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def _largest(values: Float32) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else float("nan")


def _ratio(value: float, own: float) -> float:
    return value / own if own > 0.0 else float("nan")
