"""Disk space that a dub will take, compared with the free space before the work begins.

The sizes of records and windows are exact for one face in every frame. The size of the video is the least that footage of many
kinds took, so that a dub that would fit is not refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.dub.state.disk import fillable_bytes, shown_bytes
from gateway.dub.state.records import EXPRESSION_RECORD, FACE_RECORD, FEATURE_RECORD, MOTION_RECORD
from gateway.media.types import VideoInfo
from services.common.errors import StorageFullError
from services.common.face.crops import BOX_SIZE
from services.common.texts import Option, Text

_VIDEO_BYTES: Final = {"h264": 0.006, "hevc": 0.006, "ffv1": 0.12, "prores": 0.2, "mpeg2video": 0.04, "dnxhr": 0.4, "av1": 0.003}
"""Bytes per luma sample of a video, by codec: the least of 15 clips of 256 to 1920 pixels, with the quality that videos have."""
_SPOOL_BYTES: Final = 1 << 30
"""Most bytes of encoded pictures that lie beside the video while the video is muxed (gateway/media/muxer.py)."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Space that one part of a dub will take.

    Attributes:
        folder: where the part is written. The folder may not exist yet.
        num_bytes: bytes that are still to be written; less than 0: none.
        what: name of the part, such as `the rendered mouths`.
        remedy: option or setting that puts the part elsewhere.
    """

    folder: Path
    num_bytes: int
    what: str
    remedy: str | Option


def records_need(
    folder: Path,
    num_frames: int,
    motion_frames: int,
    *,
    own_sound: bool,
    keeps_expression: bool,
    background: VideoInfo | None,
    used: int,
) -> DiskNeed:
    """Return the space that the records of a dub will take.

    Args:
        folder: the job's folder.
        motion_frames: frames of the motion grid in the video.
        own_sound: whether the footage has sound.
        keeps_expression: whether the video keeps the slow expression of the footage.
        background: picture of the background video of a dub with its own timeline; None: the footage is dubbed in place.
        used: bytes of records that an earlier run has written.
    """
    needed = num_frames * FACE_RECORD.itemsize + motion_frames * FEATURE_RECORD.itemsize
    shown = num_frames if background is None else background.num_frames
    needed += shown * MOTION_RECORD.itemsize
    if own_sound and keeps_expression:
        needed += motion_frames * FEATURE_RECORD.itemsize + num_frames * (MOTION_RECORD.itemsize + EXPRESSION_RECORD.itemsize)
    if background is not None:
        needed += shown * FACE_RECORD.itemsize + _video_bytes("ffv1", background, shown)
    return DiskNeed(folder, needed - used, "the job's records", "DUBSTAGE_DATA_DIR")


def windows_need(folder: Path, mouths: Sequence[tuple[int, int]], journalled: int) -> DiskNeed:
    """Return the space that the journalled windows of a dub will take in a local artefact store.

    Args:
        folder: the artefact store.
        mouths: of each dubbed face, the number of frames whose mouth is rendered, and the native pixels per box pixel
            (native_boxes.py); 0: not known yet, counted as 1.
        journalled: bytes of the windows that an earlier run has stored.
    """
    needed = sum(num_frames * BOX_SIZE * BOX_SIZE * (8 + max(1, scale) ** 2) for num_frames, scale in mouths)
    return DiskNeed(folder, needed - journalled, "the rendered mouths", "DUBSTAGE_ARTEFACTS_URL")


def video_need(output: Path, codec: str, video: VideoInfo) -> DiskNeed:
    """Return the space that a video will take, with the encoded pictures that wait beside the video for the end of the dub."""
    size = _video_bytes(codec, video, video.num_frames)
    return DiskNeed(
        output.parent, size + min(size, _SPOOL_BYTES), "the video and the encoded pictures beside it", Option("output_uri")
    )


def segments_need(folder: Path, codec: str, video: VideoInfo) -> DiskNeed:
    """Return the space that the kept segments of a scene take in a local artefact store."""
    return DiskNeed(folder, _video_bytes(codec, video, video.num_frames), "the encoded pictures", "DUBSTAGE_ARTEFACTS_URL")


def output_needs(
    output: Path,
    codec: str,
    video: VideoInfo,
    store: Path | None,
    mouths: Sequence[tuple[int, int]],
    *,
    stored: int,
    segmented: bool,
) -> list[DiskNeed]:
    """Return the space that a video will take, and all that a local artefact store keeps of the dub until its end.

    Args:
        output: the video.
        codec: codec of the video.
        video: picture of the video.
        store: folder of the artefact store; None: the store is not on this machine.
        mouths: as for `windows_need`.
        stored: bytes that an earlier run has stored.
        segmented: whether the segments of the video are kept.
    """
    needs = [video_need(output, codec, video)]
    if store is not None:
        needs.append(windows_need(store, mouths, stored))
        if segmented and not stored:
            needs.append(segments_need(store, codec, video))
    return needs


def check_disks(footage: Path, needs: Sequence[DiskNeed]) -> None:
    """Check that each file system has room for the files that will be written to the file system. Blocks.

    Raises:
        StorageFullError: a file system has too little free space. The message has the figures and the remedies.
    """
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        if need.num_bytes > 0:
            disks.setdefault(_disk_of(_existing(need.folder)), []).append(need)
    for parts in disks.values():
        free = fillable_bytes(_existing(parts[0].folder))
        if sum(part.num_bytes for part in parts) > free:
            raise _too_full(footage, parts, free)


def on_disk_of(folder: Path, needs: Sequence[DiskNeed]) -> list[DiskNeed]:
    """Return what will be written to the disk of a folder."""
    disk = _disk_of(_existing(folder))
    return [need for need in needs if _disk_of(_existing(need.folder)) == disk]


def _too_full(footage: Path, parts: Sequence[DiskNeed], free: int) -> StorageFullError:
    needed = ", ".join(f"about {shown_bytes(part.num_bytes)} for {part.what} in {part.folder}" for part in parts)
    return StorageFullError(
        Text(
            "the disk has too little space to dub {footage}: {needed}; {free} of the disk may be filled. Free some (`dubstage jobs "
            "clean` removes unfinished jobs), or choose another disk with {remedy}",
            footage=footage,
            needed=needed,
            free=shown_bytes(free),
            remedy=_either(list(dict.fromkeys(part.remedy for part in parts))),
        ),
        subject=str(parts[0].folder),
    )


def _video_bytes(codec: str, video: VideoInfo, num_frames: int) -> int:
    return int(_VIDEO_BYTES[codec] * video.width * video.height * num_frames)


def _disk_of(folder: Path) -> int:
    """Return the number of the file system that holds a folder."""
    return folder.stat().st_dev


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest folder above it that exists."""
    existing = Path(os.path.abspath(folder))
    while not existing.exists():
        existing = existing.parent
    return existing


def _either(names: Sequence[str | Option]) -> str | Option:
    first, *more = names
    return Text("{first} or {other}", first=first, other=_either(more)) if more else first
