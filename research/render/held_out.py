"""Self-re-enactment with the true landmarks: a bank from the first part of a clip, frames to draw from the rest, and metrics of the
drawn faces in the mouth box of 104 x 80 px round the lips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from research.render.people import ClipSpan, read_bank
from research.training.trainset import ClipRow, TrainSet
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import BOX_SIZE
from services.common.face.landmarks import NUM_LIPS
from services.common.face.mouth_bank import MAX_BANK_FRAMES, MouthBank, make_bank
from services.render.key_pictures import match_colour
from services.render.pairs import BASE, MASK, NEAREST_FRAMES, Pair

MOUTH_BOX: Final = (104, 80)
"""Width and height of the mouth box, box pixels."""
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2
_WINDOW_SIGMA: Final = 1.5
_ENROLMENT_SHARE: Final = 0.6
_MAX_BANK_FRAMES: Final = 300
Draw = Callable[[Sequence[Pair]], Float32]
"""Returns drawn faces, float32 [N, 160, 160, 3], grey levels, for pairs."""
Faces = list[UInt8]
"""Drawn faces, uint8 [160, 160, 3] each, one per pair of a clip."""


@dataclass(frozen=True, slots=True)
class HeldOutQuality:
    """Figures of one frame, or means over frames.

    Attributes:
        psnr_db: PSNR in the mouth box, RGB, decibels.
        ssim: SSIM in the mouth box, grey (Wang et al. 2004, Gaussian window of sigma 1.5).
        sharpness_ratio: variance of the Laplacian of the drawn mouth, divided by that of the filmed mouth.
    """

    psnr_db: float
    ssim: float
    sharpness_ratio: float


def mouth_slices(box_landmarks: npt.NDArray[np.floating]) -> tuple[slice, slice]:
    """Return rows and columns of the mouth box round the mean of the lips, inside the render box.

    Args:
        box_landmarks: float [59, 2], landmarks of the face, box pixels.
    """
    centre = box_landmarks[:NUM_LIPS].mean(axis=0)
    left, top = (
        int(np.clip(round(float(middle) - size / 2), 0, BOX_SIZE - size)) for middle, size in zip(centre, MOUTH_BOX, strict=True)
    )
    return slice(top, top + MOUTH_BOX[1]), slice(left, left + MOUTH_BOX[0])


def frame_quality(drawn: UInt8, truth: UInt8, box_landmarks: npt.NDArray[np.floating]) -> HeldOutQuality:
    """Return the metrics of one frame.

    Args:
        drawn: uint8 [160, 160, 3], the drawn face, blended.
        truth: uint8 [160, 160, 3], the footage.
        box_landmarks: float [59, 2], landmarks of the footage, box pixels.
    """
    rows, columns = mouth_slices(box_landmarks)
    got, want = drawn[rows, columns], truth[rows, columns]
    error = float(np.mean((got.astype(np.float64) - want) ** 2))
    grey_got, grey_want = (cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float64) for part in (got, want))
    return HeldOutQuality(
        float(10.0 * np.log10(255.0**2 / max(error, 1e-6))),
        _ssim(grey_got, grey_want),
        _sharpness(grey_got) / _sharpness(grey_want),
    )


def mean_quality(frames: list[HeldOutQuality]) -> HeldOutQuality:
    """Return means over frames. The sharpness ratio is a geometric mean."""
    return HeldOutQuality(
        float(np.mean([frame.psnr_db for frame in frames])),
        float(np.mean([frame.ssim for frame in frames])),
        float(np.exp(np.mean([np.log(frame.sharpness_ratio) for frame in frames]))),
    )


def _sharpness(grey: npt.NDArray[np.float64]) -> float:
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def _ssim(got: npt.NDArray[np.float64], want: npt.NDArray[np.float64]) -> float:
    def smooth(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(picture, (11, 11), _WINDOW_SIGMA))

    mean_got, mean_want = smooth(got), smooth(want)
    variance_got = smooth(got * got) - mean_got**2
    variance_want = smooth(want * want) - mean_want**2
    covariance = smooth(got * want) - mean_got * mean_want
    numerator = (2 * mean_got * mean_want + _C1) * (2 * covariance + _C2)
    denominator = (mean_got**2 + mean_want**2 + _C1) * (variance_got + variance_want + _C2)
    return float((numerator / denominator).mean())


class Clip(NamedTuple):
    """Clip of a training set that is not trained on.

    Attributes:
        row: the clip.
    """

    data: TrainSet
    row: ClipRow


def clips_named(folder: Path, names: Sequence[str]) -> list[Clip]:
    """Return clips of a training set by the names of their rows.

    Args:
        folder: folder of the training set.

    Raises:
        InvalidRequestError: the folder holds no training set, or the set has no clip of a name with a face.
    """
    data = TrainSet(folder)
    rows = {row.name: row for row in data.rows if row.usable_frames}
    for name in names:
        if name not in rows:
            raise InvalidRequestError(
                f"{folder} has no clip {name[:80]!r} with a face: the names stand in the manifest, in the field `name`",
                field="clip",
            )
    return [Clip(data, rows[name]) for name in names]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Clip with frames to draw.

    Attributes:
        bank: the enrolment part of the clip.
        pairs: frames of the rest.
        landmarks: float32 [N, 59, 2], landmarks of these frames, box pixels.
    """

    name: str
    bank: MouthBank
    pairs: tuple[Pair, ...]
    landmarks: Float32

    def first(self, count: int) -> HeldOut:
        """Return the clip with its first `count` pairs only; 0: all pairs."""
        end = count or len(self.pairs)
        return HeldOut(self.name, self.bank, self.pairs[:end], self.landmarks[:end])


class TwoParts(NamedTuple):
    """Clip that is cut in two.

    Attributes:
        whole: all frames, at most MAX_BANK_FRAMES.
        bank: the enrolment part, the first rows of `whole`.
        rows: intp [N], rows of `whole` behind the enrolment part that are to be drawn.
    """

    whole: MouthBank
    bank: MouthBank
    rows: npt.NDArray[np.intp]


def held_out(clip: Clip, num_frames: int, pair: Callable[[TwoParts, int], Pair]) -> HeldOut:
    """Return a clip, cut in two, with pairs of the second part.

    Args:
        num_frames: number of frames to draw, evenly spread; 0: all frames of the second part, one after the other.
        pair: returns the pair of a row of `TwoParts.whole`.
    """
    parts = cut_in_two(clip, num_frames)
    drawn = (pair(parts, int(row)) for row in parts.rows)
    # Copies, so that no pair keeps the pictures of the whole clip in memory.
    pairs = tuple(Pair(each.picture, each.target.copy()) for each in drawn)
    return HeldOut(clip.row.name, parts.bank, pairs, parts.whole.box_landmarks[parts.rows])


def cut_in_two(clip: Clip, num_frames: int) -> TwoParts:
    """Return the enrolment part of a clip and the rows of the rest to draw; see `held_out`."""
    whole = read_bank(clip.data, [ClipSpan(clip.row, 0, min(clip.row.usable_frames, MAX_BANK_FRAMES))])
    end = max(1, min(int(whole.num_frames * _ENROLMENT_SHARE), _MAX_BANK_FRAMES))
    # Copies, so that the bank does not keep the pictures of the whole clip in memory.
    bank = make_bank(whole.boxes[:end].copy(), whole.mouth[:end], whole.rotation[:end], whole.frame_index[:end], whole.geometry)
    last = whole.num_frames - 1
    first = min(end + NEAREST_FRAMES, last)
    spread = np.linspace(first, last, num_frames) if num_frames else np.arange(first, last + 1)
    return TwoParts(whole, bank, np.unique(spread.round().astype(np.intp)))


def blended(pair: Pair, drawn: Float32) -> UInt8:
    """Return a drawn face, blended into the pair's footage by the soft mask: uint8 [160, 160, 3].

    Args:
        pair: mask and footage.
        drawn: float32 [160, 160, 3], grey levels.
    """
    weight = pair.picture[..., MASK : MASK + 1].astype(np.float32) / 255.0
    mixed = weight * np.clip(drawn, 0, 255) + (1.0 - weight) * pair.target
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def base_pictures(pairs: Sequence[Pair]) -> Float32:
    """Return the pictures that a network starts from, float32 [N, 160, 160, 3]: these the network has to improve."""
    return np.stack([pair.picture[..., BASE] for pair in pairs]).astype(np.float32)


def measure(clip: HeldOut, draw: Draw) -> HeldOutQuality:
    """Return mean metrics over the clip's frames."""
    drawn = draw(clip.pairs)
    return mean_quality(
        [
            frame_quality(blended(pair, picture), pair.target, points)
            for pair, picture, points in zip(clip.pairs, drawn, clip.landmarks, strict=True)
        ]
    )


def draw_sheet(path: Path, columns: Sequence[Sequence[UInt8]]) -> None:
    """Write a contact sheet. A missing folder is created.

    Args:
        path: the file, with the ending of its format, such as .png.
        columns: one column per example: its pictures from top to bottom, uint8 [H, W, 3], RGB.
    """
    sheet = np.hstack([np.vstack(list(column)) for column in columns])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


class DrawnClip(NamedTuple):
    """Faces beside the clip that they were drawn for."""

    clip: HeldOut
    faces: Faces


@dataclass(frozen=True, slots=True)
class ClipMetrics:
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
        """Return the metrics as cells of a table."""
        return f"{self.psnr_db:.2f} dB  {self.ssim:.4f}  sharp {self.sharpness_ratio:.2f}  flicker {self.flicker_ratio:.2f}"


def base_faces(clip: HeldOut) -> DrawnClip:
    """Return the pictures that the network starts from as faces."""
    return DrawnClip(clip, [pair.picture[..., BASE] for pair in clip.pairs])


def still_mouth(clip: HeldOut) -> DrawnClip:
    """Return faces that all show the bank's most ordinary mouth, in the light of each frame."""
    medoid = clip.bank.boxes[clip.bank.medoid]
    return DrawnClip(clip, [match_colour(medoid, pair.target, pair.picture[..., MASK]) for pair in clip.pairs])


def spread_indices(clip: HeldOut) -> range:
    """Return the indices of about eight of a clip's pairs, evenly spread, for a contact sheet."""
    return range(0, len(clip.pairs), max(1, len(clip.pairs) // 8))


def clip_metrics(shown: DrawnClip) -> ClipMetrics:
    """Return the metrics of faces that were drawn for consecutive frames of a clip."""
    clip = shown.clip
    pictures = [blended(pair, np.asarray(face, np.float32)) for pair, face in zip(clip.pairs, shown.faces, strict=True)]
    quality = mean_quality(
        [frame_quality(got, pair.target, points) for got, pair, points in zip(pictures, clip.pairs, clip.landmarks, strict=True)]
    )
    steps = []
    for index in range(1, len(pictures)):
        part = mouth_slices(clip.landmarks[index])
        pairs = ((pictures[index], pictures[index - 1]), (clip.pairs[index].target, clip.pairs[index - 1].target))
        steps.append([float(np.abs(new[part].astype(float) - old[part]).mean()) for new, old in pairs])
    changes = np.array(sorted(steps, key=lambda step: step[1])[: max(1, len(steps) // 4)])
    return ClipMetrics(quality.psnr_db, quality.ssim, quality.sharpness_ratio, float(changes[:, 0].mean() / changes[:, 1].mean()))
