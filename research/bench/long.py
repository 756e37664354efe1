"""Two hours of footage: is memory flat, and is the last part as fast as the first? `python -m research.bench.long`.

A clip is looped to a video of a minute and to a long video. Both are dubbed by the command of a user, with an actor that was
enrolled before. While the long video is dubbed, the memory of the process tree and the finished frames of the second pass are
looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from research.bench.runs import (
    DUBSTAGE,
    HEIGHT,
    CommandFailedError,
    default_clip,
    footage_parser,
    make_footage,
    measure,
    tell,
    tree_memory_mib,
    work_folder,
)
from services.common.methods import DEFAULT_METHOD

ACTOR: Final = "long"
MINUTE_S: Final = 60.0
TWO_HOURS_S: Final = 7200.0
ALLOWED: Final = 0.05
"""Most by which memory may exceed that of the minute, and speed at the end may differ from speed at the beginning, as a part."""
_LOOK_S: Final = 1.0
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

    @property
    def good(self) -> bool:
        """Whether memory was flat and speed was constant."""
        return self.memory_growth <= ALLOWED and abs(self.slowdown) <= ALLOWED


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
    environment = {**os.environ, "XDG_DATA_HOME": str(work / "data")}
    minute, video = work / "minute.mp4", work / "long.mp4"
    make_footage(clip, speech, min(MINUTE_S, seconds), minute, height)
    frames = make_footage(clip, speech, seconds, video, height)
    enrol = [*DUBSTAGE, "actor", "create", ACTOR, str(minute), "--method", DEFAULT_METHOD, "--no-personalize"]
    measure(enrol, work / "enrol.log", environment)
    tell(f"footage: {clip.name}, {frames} frames, {height} pixels high; the actor is enrolled")
    minute_peak = measure(_dub(minute), work / "minute.log", environment).peak_memory_mib
    tell(f"a minute takes {minute_peak:.0f} MiB")
    watched = _Watched(_dub(video), work / "long.log", environment, work / "data" / "dubstage" / "jobs")
    watched.run()
    first, last = _ends(watched.windows)
    return LongResult(
        seconds=seconds,
        frames=frames,
        wall_s=watched.wall_s,
        minute_peak_mib=minute_peak,
        long_peak_mib=watched.peak_mib,
        first_ms=first,
        last_ms=last,
    )


def _dub(video: Path) -> list[str]:
    return [*DUBSTAGE, "dub", str(video), "--actor", ACTOR, "-o", str(video.with_name(f"{video.stem}_dub.mp4"))]


class _Watched:
    """A dub, the memory of its process tree, and the number of windows in its journal at each look."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], jobs: Path) -> None:
        self._command, self._log, self._environment, self._jobs = command, log, environment, jobs
        self.peak_mib = self.wall_s = 0.0
        self.windows: list[tuple[float, int]] = []

    def run(self) -> None:
        """Run the command to its end.

        Raises:
            CommandFailedError: the command failed.
        """
        began = time.monotonic()
        with self._log.open("wb") as output:
            process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(self._environment)
            )
            while process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    self.peak_mib = max(self.peak_mib, tree_memory_mib(psutil.Process(process.pid)))
                # The journal has one file for each finished window of 32 frames.
                done = sum(1 for _ in self._jobs.glob("*/journal/*"))
                if done and (not self.windows or done > self.windows[-1][1]):
                    self.windows.append((time.monotonic() - began, done))
                time.sleep(_LOOK_S)
        self.wall_s = time.monotonic() - began
        if process.returncode:
            end = self._log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
            raise CommandFailedError(f"{' '.join(self._command)} ended with code {process.returncode}:\n{end}")


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
    print(f"{result.frames} frames in {result.wall_s:.0f} s")
    print(
        f"peak memory {result.minute_peak_mib:.0f} MiB for a minute, {result.long_peak_mib:.0f} MiB ({result.memory_growth:+.1%})"
    )
    print(f"{result.first_ms:.1f} ms per frame at the beginning, {result.last_ms:.1f} ms at the end ({result.slowdown:+.1%})")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
