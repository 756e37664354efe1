"""Measure whether a mark is found that was copied, without the key, from a dub to genuine footage of any person."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gateway.dub.watermark_reading import find_watermark
from gateway.media.probe import probe
from research.bench.watermark.studio import Studio
from research.bench.work import tell
from services.common.errors import DubstageError
from services.common.methods import DEFAULT_METHOD
from tests.system.copied_mark import copy_mark
from tests.system.dubbing import first_seconds


@dataclass(frozen=True, slots=True)
class Copy:
    """A mark that was copied.

    Attributes:
        marked: clip whose dub the mark was copied from.
        footage: clip whose footage the mark was added to.
        log10_false_alarm: decimal logarithm of the probability that a film without the mark shows as much.
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
        ValueError: there are no films with watermarks.
    """
    key = studio.sealer.watermark_key
    if key is None:
        raise ValueError("films get no watermark: leave DUBSTAGE_WATERMARK out")
    for number, clip in enumerate(clips):
        dub = studio.folder / "dub.mp4"
        try:
            own = _beginning(studio, clip, seconds)
            await studio.dub(own, dub, DEFAULT_METHOD, personalize=False)
            for footage in dict.fromkeys((clips[(number + 1) % len(clips)], clip)):
                forged = studio.folder / "forged.mkv"
                await copy_mark(studio.stages, dub, _beginning(studio, footage, seconds), forged)
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
        told = f": {', '.join(found)}" if found and not same else ""
        lines.append(f"copied to {words}: {len(found)} of {len(chosen)} marks found, least probability 10^{least:.1f}{told}")
    return lines
