"""`python -m research.evaluation.planted_faults VIDEO...`: which planted faults of a mouth the figures of an evaluation see.

Faults of five strengths are planted in one half of each real video. The other half is the person's own video, with which the
figures compare. Both halves take both parts. Faults are drawn on render boxes with the landmarks of the real video. Prints a table
in Markdown: for each figure the mean over the halves in the real video and under each strength.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway.dub.learn.analysis import track_footage
from gateway.dub.state.records import pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.inspection import inspect_video
from gateway.reports.appearance import (
    OPEN_PX,
    SHUT_PX,
    MouthAppearance,
    appearance_metrics,
    clothing_moved,
    filled,
    mouth_appearance,
    skin_light,
)
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stage
from services.common.array_types import Array, Bool, Float32, UInt8
from services.common.face.crops import BOX_SIZE, apply_affine, box_from_frame
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, MOUTH_AREA, mouth_opening
from services.common.server.settings import load_settings

Fault = Callable[[UInt8, Float32, float], UInt8]
"""boxes uint8 [T, 160, 160, 3] RGB, landmarks float32 [T, 478, 2] (box pixels, no NaN), strength -> boxes with the fault."""
SEEN_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "gold teeth (b*)": ("tint_alarms",),
    "grey veil (opacity)": ("tint_alarms", "low_contrast"),
    "second nostrils (darkness)": ("nostril_alarms",),
    "blurred inside (px)": ("low_contrast",),
    "popping (share)": ("popping",),
    "clothing moved (px)": ("clothing_moved",),
    "soft seam (px)": ("seam_sharpness",),
    "lighter lips (share)": ("lip_jump",),
}
"""Figures that are printed for each fault."""
MOST_FRAMES: Final = 200


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


@dataclass(frozen=True, slots=True)
class MouthClip:
    """Mouths of consecutive frames of one person: render boxes, uint8 [T, 160, 160, 3], and landmarks, float32 [T, 478, 2]."""

    boxes: UInt8 = field(repr=False)
    points: Float32 = field(repr=False)

    def part(self, frames: slice) -> MouthClip:
        """Return some of the frames."""
        return MouthClip(self.boxes[frames], self.points[frames])


def detections(clip: MouthClip) -> dict[tuple[str, str], list[list[float]]]:
    """Return the figures of both halves of a video against the other half.

    Returns:
        by fault and figure a row for each half: the figure of the real video, and of the fault in each strength.
    """
    half = len(clip.boxes) // 2
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for own, tested in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        reference, real = (_seen(clip.part(part), clip.part(part).boxes) for part in (own, tested))
        still = np.zeros(len(real.opening), np.float32)
        before = asdict(appearance_metrics(reference, real, still, 0.0))
        for fault, (plant, strengths) in FAULTS.items():
            part = clip.part(tested)
            measured = [before]
            for strength in strengths:
                drawn = plant(part.boxes, part.points, strength)
                moved = clothing_moved(part.boxes, drawn, part.points) if "clothing_moved" in SEEN_BY[fault] else still
                measured.append(asdict(appearance_metrics(reference, _seen(part, drawn), moved, 0.0)))
            for name in SEEN_BY[fault]:
                rows.setdefault((fault, name), []).append([figures[name] for figures in measured])
    return rows


def _seen(clip: MouthClip, drawn: UInt8) -> MouthAppearance:
    return mouth_appearance(drawn, clip.points, skin_light(clip.boxes, clip.points))


def table(videos: Sequence[MouthClip]) -> Iterator[str]:
    """Yield the lines of the table of all videos."""
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for video in videos:
        for key, measured in detections(video).items():
            rows.setdefault(key, []).extend(measured)
    yield "| fault, strengths | figure | real video: mean, worst | by strength |"
    yield "|---|---|---|---|"
    for (fault, name), measured in rows.items():
        values = np.array(measured)
        finite = values[np.isfinite(values).all(axis=1)]
        worst = min(finite[:, 0]) if name == "seam_sharpness" else max(finite[:, 0])
        strengths = ", ".join(f"{strength:g}" for strength in FAULTS[fault][1])
        by_strength = " ".join(f"{value:.2f}" for value in finite[:, 1:].mean(axis=0))
        yield f"| {fault}: {strengths} | `{name}` | {finite[:, 0].mean():.2f}, {worst:.2f} | {by_strength} |"


async def mouths_of_video(stages: Stages, path: Path) -> MouthClip:
    """Return the mouths of the largest face in the first MOST_FRAMES usable frames of a video.

    Raises:
        DubstageError: the video cannot be read, or the face stage failed.
    """
    info = inspect_video(path)
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as workspace:
        index = await track_footage(stages, info, workspace, threads=1, on_frame=lambda _: None)
        ids, counts = np.unique(index.face_id, return_counts=True)
        rows = index.rows_of(int(ids[np.argmax(counts)]))
        records = workspace.faces.read_rows(rows[rows >= 0][:MOST_FRAMES].tolist())
    points = [apply_affine(box_from_frame(pose_of(record)), record["landmarks"]) for record in records]
    return MouthClip(records["pixels"].copy(), np.stack(points))


async def _main(paths: Sequence[Path]) -> None:
    async with open_stage(load_settings(GatewaySettings), "face") as stages:
        for line in table([await mouths_of_video(stages, path) for path in paths]):
            print(line)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m research.evaluation.planted_faults", description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    asyncio.run(_main(parser.parse_args().videos))


if __name__ == "__main__":
    main()
