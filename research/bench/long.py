"""Two hours of footage: is memory flat, and is the last part as fast as the first? `python -m research.bench.long`.

A clip is looped to a video of a minute and to a long video. Both are dubbed by the command of a user, with an actor that was
enrolled before. While the long video is dubbed, the memory of the process tree and the finished frames of the second pass are
looked at.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from research.bench.runs import (
    DUBSTAGE,
    HEIGHT,
    CommandFailedError,
    default_clip,
    footage_parser,
    make_footage,
    measure,
    measured_environment,
    rows_of,
    table,
    tell,
    work_folder,
    write_json,
)
from services.common.methods import DEFAULT_METHOD

ACTOR: Final = "long"
MINUTE_S: Final = 60.0
TWO_HOURS_S: Final = 7200.0
ALLOWED: Final = 0.05
"""Most by which memory may exceed that of the minute, and speed at the end may differ from speed at the beginning, as a part."""
_POLL_S: Final = 1.0
_PART: Final = 1 / 12
"""Part of the video's frames that the first and the last speed are over: ten minutes of two hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LongResult:
    """Results of the measurement.

    Attributes:
        seconds: length of the long video.
        wall_s: time of the whole command for the long video, seconds.
        minute_peak_mib, long_peak_mib: peak memory of the process tree, MiB.
        first_ms, last_ms: time per frame of the first and of the last twelfth of the video's windows, ms.
    """

    seconds: float
    frames: int
    wall_s: float
    minute_peak_mib: float
    long_peak_mib: float
    first_ms: float
    last_ms: float

    @property
    def memory_growth(self) -> float:
        """Peak memory of the long video beyond that of the minute, as a part."""
        return self.long_peak_mib / self.minute_peak_mib - 1.0

    @property
    def slowdown(self) -> float:
        """Time per frame at the end beyond that at the beginning, as a part."""
        return self.last_ms / self.first_ms - 1.0


def run(clip: Path, speech: Path | None, seconds: float, height: int, work: Path) -> LongResult:
    """Measure in a folder that holds nothing else.

    Args:
        clip: footage with one face.
        speech: speech of the videos; None: the clip's own.
        seconds: length of the long video.
        height: of both videos, an even number of pixels.
        work: for videos, logs, actors and artefacts.

    Raises:
        CommandFailedError: one of the commands failed.
        ValueError: there is no sound.
    """
    environment = measured_environment(work)
    minute, video = work / "minute.mp4", work / "long.mp4"
    make_footage(clip, speech, min(MINUTE_S, seconds), minute, height)
    frames = make_footage(clip, speech, seconds, video, height)
    enrol = [*DUBSTAGE, "actor", "create", ACTOR, str(minute), "--method", DEFAULT_METHOD, "--no-personalize"]
    measure(enrol, work / "enrol.log", environment)
    tell(f"footage: {clip.name}, {frames} frames, {height} pixels high; the actor is enrolled")
    minute_peak = measure(_dub(minute), work / "minute.log", environment).peak_memory_mib
    tell(f"a minute takes {minute_peak:.0f} MiB")
    windows: list[tuple[float, int]] = []

    def note_windows() -> None:
        if windows and time.monotonic() - windows[-1][0] < _POLL_S:
            return
        # The journal has one file for each finished window of 32 frames.
        done = sum(1 for _ in (work / "data" / "dubstage" / "jobs").glob("*/journal/*"))
        if done and (not windows or done > windows[-1][1]):
            windows.append((time.monotonic(), done))

    long = measure(_dub(video), work / "long.log", environment, note_windows)
    first, last = _ends(windows)
    return LongResult(
        seconds=seconds,
        frames=frames,
        wall_s=long.wall_s,
        minute_peak_mib=minute_peak,
        long_peak_mib=long.peak_memory_mib,
        first_ms=first,
        last_ms=last,
    )


def _dub(video: Path) -> list[str]:
    return [*DUBSTAGE, "dub", str(video), "--force", "--actor", ACTOR, "-o", str(video.with_name(f"{video.stem}_dub.mp4"))]


def _ends(windows: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the time per frame in the first and in the last part of the windows, ms.

    Raises:
        ValueError: the video was too short for two parts.
    """
    total = windows[-1][1] if windows else 0
    part = max(2, round(total * _PART))
    first = [(at, done) for at, done in windows if done <= windows[0][1] + part]
    last = [(at, done) for at, done in windows if done >= total - part]
    if min(len(first), len(last)) < 2 or first[-1][1] > last[0][1]:
        raise ValueError("too few windows were seen to compare the beginning with the end: give more --seconds")
    one, other = (1000.0 * (part[-1][0] - part[0][0]) / (32 * (part[-1][1] - part[0][1])) for part in (first, last))
    return one, other


def main() -> int:
    """Parse the command line, measure, print and write; 1 if memory grew, or speed changed."""
    parser = footage_parser("python -m research.bench.long", __doc__)
    parser.add_argument("--seconds", type=float, default=TWO_HOURS_S, help="length of the long video")
    parser.add_argument("--height", type=int, default=HEIGHT, help="height of the videos, an even number of pixels")
    parser.add_argument("--out", type=Path, default=Path("out/bench-long.json"))
    parser.add_argument("--keep", type=Path, default=None, help="folder that keeps videos and logs")
    options = parser.parse_args()
    try:
        with work_folder(options.keep) as work:
            result = run(options.clip or default_clip(), options.speech, options.seconds, options.height, work)
    except (CommandFailedError, ValueError, FileNotFoundError) as problem:
        tell(f"bench failed: {problem}")
        return 1
    print(table(rows_of(result)))
    print(f"memory {result.memory_growth:+.1%}, time per frame at the end {result.slowdown:+.1%}")
    write_json(options.out, rows_of(result))
    return 0 if result.memory_growth <= ALLOWED and abs(result.slowdown) <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
