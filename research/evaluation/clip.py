"""The clips of an evaluation: the videos, their face crops, head poses, sound, and lower faces at the footage's own resolution.

Clips are videos by name, or videos of a catalogue by their use.

The mouth at the footage's own resolution: the finished picture of a frame there, and how much fine detail the picture has.

A crop of 256 x 256 pixels hides how soft a mouth is on a close shot. So the energy of the finest band is compared with the truth's
on the footage's own pixels, into which the finished box is resampled as in a dub. The band is the luma without its Gaussian blur of
one pixel, over the mouth box.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import soxr

from gateway.compositing.detail import box_with_detail
from gateway.compositing.jaw import warp_footage
from gateway.compositing.planes import picture_at, weight_at
from gateway.dub.analyse.face_choice import FaceChoice
from gateway.dub.analyse.frame_plan import DUBBED
from gateway.dub.convert import reason_name
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.progress import OnProgress
from gateway.dub.state.native_boxes import native_luma, scale_of
from gateway.dub.state.records import pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.combs import deinterlaced_luma
from gateway.media.inspection import inspect_video
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for
from research.evaluation.measures import MOUTH_BOX_HEIGHT, MOUTH_BOX_WIDTH
from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.errors import InvalidRequestError, MediaUnsupportedError, NoUsableFootageError
from services.common.face.crops import (
    ANCHOR_IN_CROP,
    BOX_ORIGIN,
    BOX_SIZE,
    CROP_SIZE,
    POSE_SIZE,
    HeadPose,
    box_from_frame,
    crop_from_frame,
    invert,
    pose_vectors,
)
from services.common.face.mouth_detail import enlarged, grey, luma_of
from services.common.face.native_pictures import native_affine
from services.common.methods import method_named

_MARGIN_PX: Final = 4
"""Pixels around the mouth box that the blur of the finest band sees."""
_AROUND_COMBS_PX: Final = 8
_SUBPIXEL_BITS: Final = 4
SPEECH_RATE_HZ: Final = 16000
LAG_FRAME_SAMPLES: Final = SPEECH_RATE_HZ // 25
SILENCE_S: Final = 1.2
"""Seconds of silence before and after framed speech: longer than the mouth needs to come to rest."""
CATALOGUE: Final = "catalogue.csv"


@dataclass(frozen=True, slots=True)
class FootagePatch:
    """Pixels of the real video around a mouth.

    Attributes:
        luma: uint8 [H, W], upright, without combs of interlaced video, which have more of the finest band than any structure of a
            face; empty: the mouth is outside of the frame.
        from_native: float64 [2, 3], native pixels of the render box -> pixels of the patch.
        mouth: bool [H, W], the mouth box.
    """

    luma: UInt8 = field(repr=False)
    from_native: Float64
    mouth: Bool = field(repr=False)

    def energy(self) -> float:
        """Return the energy of the finest band of the real mouth; NaN: the mouth is outside of the frame."""
        return self._energy(self.luma.astype(np.float32))

    def energy_of(self, luma: Float32, mask: UInt8) -> float:
        """Return the energy of the finest band of a mouth that is blended into the video; NaN: the mouth is outside of the frame.

        Args:
            luma: float32 [160 S, 160 S], the finished box.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
        """
        if not self.mouth.any():
            return float("nan")
        shape = self.luma.shape
        weight = np.asarray(cv2.resize(mask, luma.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32) / np.float32(255.0)
        blended = self.luma + weight_at(weight, self.from_native, shape) * (picture_at(luma, self.from_native, shape) - self.luma)
        return self._energy(np.rint(blended))

    def _energy(self, luma: Array) -> float:
        if not self.mouth.any():
            return float("nan")
        band = luma - cv2.GaussianBlur(luma, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)
        return float(np.square(band[self.mouth]).mean(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class NativeTruth:
    """The real video at its own resolution.

    Attributes:
        luma: uint8 [T, 160 S, 160 S], luma of the render box at S pixels per box pixel; 0 where the frame does not show the face.
        patches: for each frame its pixels around the mouth; None: the frame does not show the face.
    """

    luma: UInt8 = field(repr=False)
    patches: list[FootagePatch | None] = field(repr=False)

    @property
    def scale(self) -> int:
        """Native pixels per box pixel, S."""
        return int(self.luma.shape[1]) // BOX_SIZE

    def energy_of(self, frame: int, luma: Float32, mask: UInt8) -> float:
        """Return the energy of the finest band of a mouth in place of the real one, in a frame that shows the face.

        Args:
            frame: index of the frame.
            luma: float32 [160 S, 160 S], the finished box.
            mask: uint8 [160, 160], weight of the box; 255 = 1.
        """
        patch = self.patches[frame]
        assert patch is not None, "the frame shows the face"
        return patch.energy_of(luma, mask)


def footage_patch(luma: UInt8, pose: HeadPose, scale: int) -> FootagePatch:
    """Return the pixels of a frame around the mouth of a face.

    Args:
        luma: uint8 [H, W], luma of the upright frame.
        scale: native pixels per box pixel.
    """
    frame_from_native = invert(native_affine(box_from_frame(pose), scale))
    x, y = (scale * (anchor - origin) for anchor, origin in zip(ANCHOR_IN_CROP, BOX_ORIGIN, strict=True))
    half_height, half_width = scale * MOUTH_BOX_HEIGHT / 2, scale * MOUTH_BOX_WIDTH / 2
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    native = (x, y) + signs * (half_width, half_height) - 0.5
    corners = native @ frame_from_native[:, :2].T + frame_from_native[:, 2]
    begin = np.clip(np.floor(corners.min(axis=0)).astype(int) - _MARGIN_PX, 0, luma.shape[::-1])
    end = np.clip(np.ceil(corners.max(axis=0)).astype(int) + _MARGIN_PX + 1, begin, luma.shape[::-1])
    # Combs are found by the samples around them.
    left, top = np.maximum(begin - _AROUND_COMBS_PX, 0)
    around = deinterlaced_luma(luma[top : end[1] + _AROUND_COMBS_PX, left : end[0] + _AROUND_COMBS_PX])
    part = around[begin[1] - top : end[1] - top, begin[0] - left : end[0] - left].copy()
    mouth = np.zeros(part.shape, np.uint8)
    if mouth.size:
        points = np.rint((corners - begin) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillConvexPoly(mouth, points, (1,), lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    from_native = frame_from_native.copy()
    from_native[:, 2] -= begin
    return FootagePatch(part, from_native, mouth.astype(np.bool_))


def finished_box(box: UInt8, mask: UInt8, skin: UInt8, detail: UInt8, own: UInt8) -> tuple[UInt8, Float32]:
    """Return the finished box at 160 pixels, uint8 [160, 160, 3], and its luma at native size, float32 [160 S, 160 S].

    Args:
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        skin: uint8 [160, 160], the mask without lips (skin_under).
        detail: uint8 [160 S, 160 S]; empty: the box has no detail.
        own: uint8 [160 S, 160 S], luma of the real video.
    """
    if detail.size:
        large = box_with_detail(box, detail, mask, skin, own.astype(np.float32))
        box = np.asarray(cv2.resize(large, (BOX_SIZE, BOX_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        large = enlarged(box, len(own) // BOX_SIZE)
    return box, luma_of(large)


def insert_box(crop: UInt8, box: UInt8, mask: UInt8, shift: Float32) -> UInt8:
    """Return a face crop with a finished render box in it, blended as compositing blends the box into the planes of a video.

    Args:
        crop: uint8 [256, 256, 3], RGB.
        box: uint8 [160, 160, 3], RGB.
        mask: uint8 [160, 160], weight of the box; 255 = 1.
        shift: float32 [160, 160, 2], how the crop is moved under and around the box, box pixels (move_jaw).
    """
    result = crop.copy()
    x, y = BOX_ORIGIN
    region = result[y : y + BOX_SIZE, x : x + BOX_SIZE]
    weight = mask[..., None].astype(np.float32) / 255.0
    region[...] = np.rint(warp_footage(region, shift) * (1.0 - weight) + box * weight).astype(np.uint8)
    return result


def check_clip(path: Path) -> MediaInfo:
    """Return the description of a clip, which has to be a video with sound.

    Raises:
        InvalidRequestError: the clip has no sound.
        MediaUnsupportedError: the clip cannot be read as a video.
    """
    info = inspect_video(path)
    if not info.audio:
        raise InvalidRequestError(f"{path} has no sound, and self-re-enactment needs the sound of the clip", field="clip")
    return info


async def open_clip(stages: Stages, path: Path, method: str, workspace: Workspace, on_progress: OnProgress) -> FootageAnalysis:
    """Return a clip, tracked, with its largest face selected.

    Args:
        method: name of the method that the clip is analysed for.
        workspace: open folder for the record files.
        on_progress: called with every tracked frame.

    Raises:
        NoUsableFootageError: the clip shows no face.
        DubstageError: the clip was refused, or a stage failed.
    """
    info, row = check_clip(path), method_named(method)
    await models_for(stages, row)
    shot = await FootageAnalysis.open(stages, row, info, workspace, threads=2)
    await shot.track(lambda done: on_progress("track", done, info.video.num_frames))
    if await shot.select(FaceChoice("largest")) is None:
        raise NoUsableFootageError(f"{path} shows no face", subject=str(path))
    return shot


def mouths_of(shot: FootageAnalysis) -> Float32:
    """Return the tracked mouths of every frame, float32 [T, 59, 3], head space, NaN where the frame does not show the face."""
    rows = shot.rows
    mouths: Float32 = shot.workspace.faces.read_rows(np.maximum(rows, 0).tolist())["mouth"].copy()
    mouths[rows < 0] = np.nan
    return mouths


def own_speech(info: MediaInfo) -> Float32:
    """Return the sound of a clip, float32 [N], 16 kHz mono, as long as the video."""
    reader = SoundReader(info.path, origin=info.video.start)
    samples = np.concatenate([chunk.samples for chunk in reader]).mean(axis=1)
    mono = soxr.resample(samples, reader.info.sample_rate_hz, SPEECH_RATE_HZ)
    length = int(info.video.duration * SPEECH_RATE_HZ)
    fitted = np.zeros(length, np.float32)
    fitted[: min(length, len(mono))] = mono[:length]
    return fitted


def shifted(samples: Float32, lag_frames: float) -> Float32:
    """Return speech of the same length, moved earlier by a lag (frames of 40 ms), so that sound and picture of the clip agree."""
    moved = np.zeros_like(samples)
    offset = round(lag_frames * LAG_FRAME_SAMPLES)
    if offset >= 0:
        moved[: len(samples) - offset] = samples[offset:]
    else:
        moved[-offset:] = samples[:offset]
    return moved


def framed_speech(samples: Float32) -> Float32:
    """Return speech with SILENCE_S of digital silence before and after it."""
    return np.pad(samples, round(SILENCE_S * SPEECH_RATE_HZ))


def chosen_clips(paths: Sequence[Path], splits: Collection[str], speakers: str = "") -> list[Path]:
    """Return the clips that paths name, in their order; without splits, the paths themselves.

    Args:
        paths: videos, and folders with a catalogue.csv (columns `file`, `use`, and perhaps `speaker`).
        splits: uses of the catalogue. A folder stands for its videos with one of these uses that have sound.
        speakers: begin of the names of the speakers whose videos a folder stands for; empty: all.

    Raises:
        InvalidRequestError: a folder has no readable catalogue, or a split has no video.
    """
    if not splits:
        return list(paths)
    clips: list[Path] = []
    for path in paths:
        clips.extend(_of_catalogue(path, splits, speakers) if path.is_dir() else [path])
    return clips


def _of_catalogue(folder: Path, splits: Collection[str], speakers: str) -> list[Path]:
    try:
        with (folder / CATALOGUE).open(newline="", encoding="utf-8-sig") as stream:
            table = list(csv.DictReader(stream))
            rows = [(row["file"], row["use"]) for row in table if (row.get("speaker") or "").startswith(speakers)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as problem:
        raise InvalidRequestError(
            f"{folder}: --splits needs a table {CATALOGUE} with the columns file and use: {problem}", field="splits"
        ) from problem
    videos = [(folder / file, use) for file, use in rows if use in splits and _is_talk(folder / file)]
    missing = [split for split in splits if split not in {use for _, use in videos}]
    if missing:
        raise InvalidRequestError(f"{folder / CATALOGUE} has no video with sound of use {', '.join(missing)}", field="splits")
    return [path for path, _ in videos]


def _is_talk(path: Path) -> bool:
    """Return whether a file is a video with sound.

    Raises:
        InvalidRequestError: the file is missing.
    """
    if not path.is_file():
        raise InvalidRequestError(f"{path} is in the catalogue, but there is no such file", field="splits")
    try:
        return check_clip(path).video.num_frames > 1
    except (InvalidRequestError, MediaUnsupportedError):
        return False


@dataclass(frozen=True, slots=True)
class Truth:
    """Frames of the real video.

    Attributes:
        crops: uint8 [T, 256, 256, 3], face crops, RGB; 0 where the frame does not show the face.
        reasons: T texts: "" for a usable frame, otherwise the reason code.
        poses: float64 [T, 6], head-pose vectors; NaN where the frame does not show the face.
        native: the lower faces at the footage's own resolution.
    """

    crops: UInt8 = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    poses: Float64 = field(repr=False)
    native: NativeTruth = field(repr=False)


def truth_of(shot: FootageAnalysis) -> Truth:
    """Return the frames of the real video, with the selected face."""
    total, rows = shot.info.video.num_frames, shot.rows
    crops = np.zeros((total, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    poses = np.full((total, POSE_SIZE), np.nan)
    scale = scale_of(shot.workspace.faces, rows[rows >= 0])
    native = NativeTruth(np.zeros((total, scale * BOX_SIZE, scale * BOX_SIZE), np.uint8), [None] * total)
    reasons: list[str] = []
    with VideoReader(shot.info) as reader:
        for frame in reader:
            row = int(rows[frame.index])
            if row < 0:
                reasons.append("TARGET_NOT_PRESENT")
                continue
            (record,) = shot.workspace.faces.read(row, row + 1)
            pose = pose_of(record)
            poses[frame.index] = pose_vectors([pose])[0]
            reason = reason_name(record["reason"])
            reasons.append("" if record["reason"] == DUBBED else reason)
            affine, rgb = crop_from_frame(pose), to_rgb(frame)
            luma = grey(rgb)
            native.luma[frame.index] = native_luma(luma, pose, scale)
            native.patches[frame.index] = footage_patch(luma, pose, scale)
            crop = cv2.warpAffine(
                rgb,
                affine,
                (CROP_SIZE, CROP_SIZE),
                flags=cv2.INTER_AREA if record["scale"] > 1 else cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )
            x, y = BOX_ORIGIN
            crop[y : y + BOX_SIZE, x : x + BOX_SIZE] = record["pixels"]
            crops[frame.index] = crop
    return Truth(crops, tuple(reasons), poses, native)
