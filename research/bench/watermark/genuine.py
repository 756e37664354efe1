"""Watermarks that the search sees in genuine footage: footage without any, and footage to which a mark was copied."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from gateway.dub.watermark_reading import find_watermark, likeliest, responses_of_faces
from gateway.media.inspection import inspect_video
from gateway.media.probe import probe
from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10, STEP_S, Detector, ResponseSpan
from gateway.provenance.watermark.payload import watermark_key
from gateway.stages.interface import Stages
from research.bench.runs import tell
from research.bench.watermark.dubs import Studio
from services.common.array_types import Float64
from services.common.errors import DubstageError
from services.common.methods import DEFAULT_METHOD
from tests.system.copied_mark import copy_mark, signs_of
from tests.system.dubbing import first_seconds

ENDINGS: Final = frozenset({".mp4", ".mov", ".mkv", ".mpg", ".mxf", ".webm", ".avi"})
THRESHOLDS: Final = tuple(0.0 - 0.25 * step for step in range(25))


@dataclass(frozen=True, slots=True)
class Readings:
    """Stated probabilities of all footage.

    Attributes:
        num_videos: number of videos in which a face is seen for a second or longer.
        seconds: length of what was looked at, of all faces together.
        own: float64 [videos], decimal logarithms, with the key of this installation.
        wrong: float64 [keys, videos], with wrong keys.
    """

    num_videos: int
    seconds: float
    own: Float64
    wrong: Float64

    @property
    def false_alarms(self) -> int:
        """Number of readings that would be called a watermark."""
        return int((self.own < FALSE_ALARM_LOG10).sum() + (self.wrong < FALSE_ALARM_LOG10).sum())


def videos_below(paths: Sequence[Path]) -> list[Path]:
    """Return videos: files as they are, and all files with the ending of a video below folders."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or file.suffix.lower() in ENDINGS]
    return found


async def faces_of_video(stages: Stages, video: Path, threads: int) -> list[list[ResponseSpan]]:
    """Return the responses of every face of a video.

    Raises:
        DubstageError: the video cannot be read.
    """
    return await responses_of_faces(stages, inspect_video(video), threads=threads, on_frame=lambda _: None)


def readings_of(videos: Sequence[Sequence[Sequence[ResponseSpan]]], own: bytes, keys: int) -> Readings:
    """Look for the key of this installation and for wrong keys in the faces of videos.

    Args:
        videos: responses of every face of every video.
        own: key of this installation, 32 bytes.
        keys: number of wrong keys.
    """
    seen = [faces for faces in videos if any(faces)]
    wrong = [watermark_key(f"wrong key {number}".encode()) for number in range(keys)]
    steps = sum(len(part.responses) for faces in seen for parts in faces for part in parts)
    return Readings(len(seen), steps * STEP_S, _chances(seen, own), np.array([_chances(seen, key) for key in wrong]))


def _chances(videos: Sequence[Sequence[Sequence[ResponseSpan]]], key: bytes) -> Float64:
    detector = Detector(key)
    return np.array([found.log10_chance for faces in videos if (found := likeliest(faces, detector)) is not None])


def write_readings(file: Path, readings: Readings) -> None:
    """Write how many readings state a probability of 10^threshold or less."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["log10_probability", "own_key", "own_key_of", "wrong_keys", "wrong_keys_of"])
        for threshold in THRESHOLDS:
            counts = [int((values <= threshold).sum()) for values in (readings.own, readings.wrong)]
            writer.writerow([threshold, counts[0], readings.own.size, counts[1], readings.wrong.size])


@dataclass(frozen=True, slots=True)
class Copy:
    """A mark that was copied.

    Attributes:
        marked: clip whose dub the mark was copied from.
        footage: clip whose footage the mark was added to.
        log10_false_alarm: decimal logarithm of the probability that a video without the mark shows as much.
        found: whether the mark was found.
        bits_right: of 64, before error correction, if the mark was found and names the installation; otherwise 0.
    """

    marked: str
    footage: str
    log10_false_alarm: float
    found: bool
    bits_right: int


async def copies_of(studio: Studio, clips: Sequence[Path], seconds: float) -> AsyncIterator[Copy]:
    """Dub the beginning of each clip, copy its mark to the next clip and to its own footage, and yield what is found there.

    Args:
        studio: makes the dubs.
        clips: footage with sound.
        seconds: length of the beginning.

    Raises:
        ValueError: there are no videos with watermarks.
    """
    key = studio.sealer.watermark_key
    if key is None:
        raise ValueError("videos get no watermark: leave DUBSTAGE_WATERMARK out")
    for number, clip in enumerate(clips):
        dub = studio.folder / "dub.mp4"
        try:
            own = _beginning(studio, clip, seconds)
            await studio.dub(own, dub, DEFAULT_METHOD, personalize=False)
            reading = responses_of_faces(studio.stages, probe(dub), threads=studio.threads, on_frame=lambda _: None)
            signs = signs_of(await reading)
            for footage in dict.fromkeys((clips[(number + 1) % len(clips)], clip)):
                forged = studio.folder / "forged.mkv"
                await copy_mark(studio.stages, signs, _beginning(studio, footage, seconds), forged)
                found = await find_watermark(studio.stages, probe(forged), key, threads=studio.threads, on_frame=lambda _: None)
                if found is not None:
                    bits = found.agreeing if found.found and found.right else 0
                    yield Copy(clip.stem, footage.stem, round(found.log10_chance, 1), found.found, bits)
        except DubstageError as problem:
            tell(f"{clip}: {problem}")


def _beginning(studio: Studio, clip: Path, seconds: float) -> Path:
    if float(probe(clip).video.duration) <= seconds:
        return clip
    return first_seconds(clip, studio.folder / clip.name, seconds)


def write_copies(file: Path, copies: Sequence[Copy]) -> None:
    """Write the table."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Copy)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(copy) for copy in copies)


def sum_of_copies(copies: Sequence[Copy]) -> list[str]:
    """Return how many copied marks were found, one line for other people and one for the same person."""
    lines = []
    for words, same in (("footage of another person", False), ("the dub's own footage", True)):
        chosen = [copy for copy in copies if (copy.marked == copy.footage) is same]
        found = [f"{copy.marked} to {copy.footage} 10^{copy.log10_false_alarm:.1f}" for copy in chosen if copy.found]
        least = min((copy.log10_false_alarm for copy in chosen), default=0.0)
        names = f": {', '.join(found)}" if found and not same else ""
        lines.append(f"copied to {words}: {len(found)} of {len(chosen)} marks found, least probability 10^{least:.1f}{names}")
    return lines
