"""When mouths move against the sound, measured by phones: `python -m research.motion.timing FOLDER... [--json FILE]`.

A folder holds videos, real ones or dubs, or is a training set, whose clips are measured with their lags taken out. MediaPipe tracks
the faces, and pocketsphinx finds the phones. No lag, speech map or sync network of dubstage has a part in this measurement, which
therefore can judge them. A frame shows the mouth at its presentation time. Three times are measured, milliseconds after the sound:

    closure   lips are closest, after the middle of p, b or m
    vowel     mouth is widest, after the middle of an open vowel
    parting   lips part, after the release of p, b or m: the opening has risen by a fifth of its rise

Lips are shut during the murmur of m and the silence of p and b, and part within some 10 ms of the release: physics fixes this
moment. People begin to close and to open their lips before the sound does, so the first two times are negative (REAL_MS).

The opening is averaged over all phones of a kind. An extreme is the vertex of a parabola (mouth_curves.extreme). Intervals are of
95 %, by a bootstrap over clips, and over phones if there are fewer than five clips.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from gateway.media.inspection import inspect_video
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stage
from research.audio.labelling import Sphinx, label
from research.training.command import command_line
from research.training.trainset import MANIFEST, ClipRow, TrainSet
from research.trainset.catalogue import VIDEOS
from research.trainset.clip import FULL_SCALE, SAMPLE_RATE_HZ, fitted_to_grid, read_pieces, tracked
from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.landmarks import mouth_opening
from services.common.wire.mouth_curves import (
    CLOSURES,
    MOTION_FRAME_S,
    OFFSETS_S,
    OPEN_VOWELS,
    REAL_MS,
    ROW_S,
    around_phones,
    extreme,
)
from services.common.wire.phones import PHONE_INDEX, SILENCE

Moment = Literal["closure", "vowel", "parting"]

_LEAST_ROWS: Final = 2
"""Fewest rows of 10 ms of a phone."""
_RELEASE_S: Final = 0.03
"""Seconds about the end of a phone in which its release is looked for: pocketsphinx's ends are off by 10 to 20 ms."""
_POWER_S: Final = 0.01
"""Seconds before and after a moment whose powers are compared: the power rises most at the release."""
_STEP_S: Final = 0.002
_RISE: Final = 0.2
"""Share of the rise of the opening at which lips count as parted."""
_RESAMPLES: Final = 1000
_FEW_CLIPS: Final = 5
_LEAST_EVENTS: Final = 8
"""Fewest phones of a time."""
_INTERVAL: Final = 3.92
"""Standard errors in an interval of 95 %."""
_REAL_ERROR_MS: Final = 5.6
"""Standard error of each of REAL_MS, whose intervals are 22 ms wide."""


@dataclass(frozen=True, slots=True)
class ClipMouth:
    """Opening and sound of one clip.

    Attributes:
        name: name of the clip.
        group: group that the clip is measured with: its folder, or the corpus of its training set.
        opening: float32 [T], opening of the mouth, crop pixels, 25 frames per second; NaN: unknown.
        lag_frames: frames by which the sound comes after the picture, which are taken out.
        samples: float32 [N], 16 kHz mono.
        phones: uint8 [R], phone class of each row of 10 ms, 255 where unknown.
        narrow: whether the clip is of a corpus of one kind of sentence.
    """

    name: str
    group: str
    opening: Float32
    lag_frames: float
    samples: Float32
    phones: UInt8
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """One measured time of a group of clips.

    Attributes:
        clips: number of clips with such phones.
        phones: number of phones.
        ms: milliseconds after the sound; NaN: too few phones, or no extreme.
        low, high: interval of 95 %.
    """

    clips: int
    phones: int
    ms: float
    low: float
    high: float


def events_of(clip: ClipMouth) -> dict[Moment, Float64]:
    """Return the moments of the sound that a mouth is compared with, seconds on the clock of the sound, float64 [E] each."""
    spans = [span for span in phone_spans(clip.phones) if span[2] - span[1] >= _LEAST_ROWS]
    closures, vowels = ({PHONE_INDEX[name] for name in names} for names in (CLOSURES, OPEN_VOWELS))
    middle: dict[Moment, set[int]] = {"closure": closures, "vowel": vowels}
    events: dict[Moment, list[float]] = {
        kind: [ROW_S * (begin + end) / 2 for phone, begin, end in spans if phone in members] for kind, members in middle.items()
    }
    silent = closures | {SILENCE, 255}
    events["parting"] = [
        release_s(clip.samples, ROW_S * end)
        for phone, _, end in spans
        if phone in closures and end < len(clip.phones) and int(clip.phones[end]) not in silent
    ]
    return {kind: np.array(times, np.float64) for kind, times in events.items()}


def phone_spans(phones: UInt8) -> list[tuple[int, int, int]]:
    """Return class, first row and row after the last of each run of one phone class."""
    edges = np.flatnonzero(np.diff(phones)) + 1
    begins, ends = np.append(0, edges), np.append(edges, len(phones))
    return [(int(phones[begin]), int(begin), int(end)) for begin, end in zip(begins, ends, strict=True) if end > begin]


def release_s(samples: Float32, end_s: float) -> float:
    """Return the moment near the end of a closure at which the power of the sound rises most, seconds.

    The power is that of the difference of neighbouring samples, in which the murmur of m, which is low, counts little.

    Args:
        samples: float32 [N], 16 kHz mono.
        end_s: end of the phone, seconds.
    """
    size = round(_POWER_S * SAMPLE_RATE_HZ)
    power = np.cumsum(np.append(0.0, np.diff(samples.astype(np.float64), prepend=0.0) ** 2))
    moments = end_s + np.arange(-_RELEASE_S, _RELEASE_S + 1e-9, _STEP_S)
    indices = np.rint(moments * SAMPLE_RATE_HZ).astype(int)
    indices = indices[(indices >= size) & (indices + size < len(power))]
    if not len(indices):
        return end_s
    after, before = power[indices + size] - power[indices], power[indices] - power[indices - size]
    return float(indices[np.argmax(np.log(after + 1e-9) - np.log(before + 1e-9))]) / SAMPLE_RATE_HZ


def openings_about(clip: ClipMouth) -> dict[Moment, Float64]:
    """Return the finite openings about the events of a clip, float64 [E, W] at mouth_curves.OFFSETS_S, by moment."""
    seconds = np.asarray((np.arange(len(clip.opening)) + clip.lag_frames) * MOTION_FRAME_S, np.float64)
    curves = {kind: around_phones(clip.opening, seconds, events) for kind, events in events_of(clip).items()}
    return {kind: each[np.isfinite(each).all(axis=1)] for kind, each in curves.items()}


def moment_ms(moment: Moment, average: Float64) -> float:
    """Return a time, milliseconds, from the average of openings about events, float64 [W]; NaN: there is none."""
    if moment == "parting":
        return 1e3 * _parting_s(average)
    return 1e3 * extreme(average if moment == "vowel" else -average)[0]


def _parting_s(average: Float64) -> float:
    """Return when an average opening has risen by _RISE of its rise, seconds."""
    (near,) = np.nonzero(np.abs(OFFSETS_S) <= 0.16 + 1e-9)
    lowest = int(near[np.argmin(average[near])])
    highest = lowest + int(np.argmax(average[lowest:]))
    level = average[lowest] + _RISE * (average[highest] - average[lowest])
    below = [index for index in range(lowest, highest) if average[index] <= level < average[index + 1]]
    if not below:
        return math.nan
    index = below[-1]
    share = (level - average[index]) / (average[index + 1] - average[index])
    return float(OFFSETS_S[index] + share * (OFFSETS_S[index + 1] - OFFSETS_S[index]))


def timing_of(moment: Moment, clips: Sequence[Float64], seed: int = 0) -> Timing:
    """Return a time of a group of clips with its interval.

    Args:
        clips: openings about the events of each clip, float64 [E, W].
        seed: seed of the bootstrap.
    """
    own = [curves for curves in clips if len(curves)]
    count = sum(map(len, own))
    if count < _LEAST_EVENTS:
        return Timing(len(own), count, math.nan, math.nan, math.nan)
    every, rng = np.concatenate(own), np.random.default_rng(seed)
    resampled = []
    for _ in range(_RESAMPLES):
        if len(own) < _FEW_CLIPS:
            drawn = every[rng.integers(count, size=count)]
        else:
            drawn = np.concatenate([own[index] for index in rng.integers(len(own), size=len(own))])
        resampled.append(moment_ms(moment, drawn.mean(axis=0)))
    finite = np.array(resampled)[np.isfinite(resampled)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (math.nan, math.nan)
    return Timing(len(own), count, moment_ms(moment, every.mean(axis=0)), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Lateness:
    """How much later than real people's mouths are: milliseconds, and their standard error. NaN: unknown."""

    ms: float
    error_ms: float


def joined(estimates: Iterable[Lateness]) -> Lateness:
    """Return the mean of independent estimates, weighted by their precision. Unknown estimates are left out."""
    finite = [each for each in estimates if math.isfinite(each.ms) and each.error_ms > 0.0]
    if not finite:
        return Lateness(math.nan, math.nan)
    precision = np.array([each.error_ms**-2 for each in finite])
    mean = float((precision * [each.ms for each in finite]).sum() / precision.sum())
    return Lateness(mean, float(precision.sum() ** -0.5))


def lateness(times: Mapping[Moment, Timing]) -> Lateness:
    """Return how much later than real people's (REAL_MS) the mouths of a group are, by closures and vowels.

    Args:
        times: measured times of the group.
    """
    return joined(
        Lateness(times[kind].ms - real, math.hypot((times[kind].high - times[kind].low) / _INTERVAL, _REAL_ERROR_MS))
        for kind, real in REAL_MS.items()
    )


def measured(clips: Iterable[ClipMouth]) -> dict[str, dict[Moment, Timing]]:
    """Return the times of each group of clips, with groups in the order of their names."""
    groups: dict[str, list[dict[Moment, Float64]]] = {}
    for clip in clips:
        groups.setdefault(clip.group, []).append(openings_about(clip))
    moments: tuple[Moment, ...] = ("closure", "vowel", "parting")
    return {
        group: {kind: timing_of(kind, [each[kind] for each in members]) for kind in moments}
        for group, members in sorted(groups.items())
    }


def clips_of_set(data: TrainSet, split: str = "train") -> Iterator[ClipMouth]:
    """Yield the clips of a training set whose lag was measured, without their lag. A group is a corpus, and a narrow one apart."""
    for row in data.of(split, face=True, phones=True):
        if row.lag_confidence >= 0.0 and row.weight > 0.0:
            yield _clip_of_row(data, row)


def _clip_of_row(data: TrainSet, row: ClipRow) -> ClipMouth:
    track = data.arrays(row, "track", ("mouth_landmarks", "usable"))
    samples = data.arrays(row, "sound", ("samples",))["samples"].astype(np.float32) / np.float32(FULL_SCALE)
    phones = data.arrays(row, "phones", ("labels",))["labels"]
    group = f"{row.source} {row.split}{' narrow' if row.narrow else ''}"
    return ClipMouth(
        row.name, group, _usable_opening(track["mouth_landmarks"], track["usable"]), row.lag_frames, samples, phones, row.narrow
    )


def _usable_opening(mouth_landmarks: Float32, usable: Bool) -> Float32:
    return np.where(usable, mouth_opening(mouth_landmarks), np.nan).astype(np.float32)


async def clip_of_video(stages: Stages, path: Path, group: str, sphinx: Sphinx, working: Path) -> ClipMouth:
    """Return opening and phones of the first minute of a video, with the sound where the video has it.

    Args:
        stages: with the face stage.
        working: file for the records meanwhile.

    Raises:
        InvalidRequestError: the video has no sound.
        MediaUnsupportedError: the video cannot be read to its end.
        NoUsableFootageError: the video shows no face.
    """
    info = inspect_video(path)
    if not info.audio:
        raise InvalidRequestError(f"{path} has no sound, so nothing can be timed", field="folder")
    async with tracked(stages, info, working) as video:
        first, count = next(video.pieces())
        track = video.track(first, count)
        if track is None:
            raise NoUsableFootageError(f"{path}: the first minute shows no face", subject=str(path))
        sound = fitted_to_grid(next(read_pieces(SoundReader(info.path, origin=info.video.start))), count)
    samples = sound.astype(np.float32) / np.float32(FULL_SCALE)
    opening = _usable_opening(track.mouth_landmarks, track.usable)
    return ClipMouth(path.stem, group, opening, 0.0, samples, label(sphinx, samples, "", ()).labels)


async def clips_of_folder(folder: Path) -> list[ClipMouth]:
    """Return the videos of a folder as one group, in the order of their names. A video without a face is named and left out."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
    if not paths:
        raise InvalidRequestError(f"{folder}: neither a training set nor a folder of videos", field="folder")
    sphinx, clips = Sphinx(), []
    async with open_stage(GatewaySettings(), "face") as stages:
        with tempfile.TemporaryDirectory() as working:
            for path in paths:
                try:
                    clips.append(await clip_of_video(stages, path, str(folder), sphinx, Path(working) / "faces"))
                except NoUsableFootageError as problem:
                    print(f"left out: {problem.message}", file=sys.stderr)
    return clips


def report_lines(groups: Mapping[str, Mapping[Moment, Timing]]) -> Iterator[str]:
    """Yield one line a group and moment."""
    for group, times in groups.items():
        for kind, each in times.items():
            interval = f"({each.low:+.1f} to {each.high:+.1f})"
            yield f"{group:40s} {kind:8s} {each.ms:+6.1f} ms {interval}, {each.phones} phones, {each.clips} clips"
        late = lateness(times)
        yield f"{group:40s} later than real people's: {late.ms:+.1f} ms, standard error {late.error_ms:.1f} ms"


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="Folders of videos, or training sets.")
    parser.add_argument("--split", default="train", help="Split of a training set. Default: train.")
    parser.add_argument("--json", type=Path, help="File for the report. Default: the report is only printed.")
    arguments = parser.parse_args()
    groups: dict[str, dict[Moment, Timing]] = {}
    for folder in arguments.folders:
        if (folder / MANIFEST).is_file():
            groups |= measured(clips_of_set(TrainSet(folder, any_zero=True), arguments.split))
        else:
            groups |= measured(asyncio.run(clips_of_folder(folder)))
    for line in report_lines(groups):
        print(line)
    if arguments.json:
        report = {group: {kind: asdict(each) for kind, each in times.items()} for group, times in groups.items()}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
