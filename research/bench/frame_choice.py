"""Time of the choice of footage frames for long speech: `python -m research.bench.frame_choice`.

Frames are chosen for retiming, and as backgrounds of predicted head motion.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.texture.backgrounds import match_backgrounds
from services.texture.select_frames import select_frames

MINUTES: Final = 10.0
"""Minutes of footage, and of speech."""
_RATE: Final = 25


@dataclass(frozen=True, slots=True)
class FrameChoiceTime:
    """One row.

    Attributes:
        name: "retiming" (SelectFrames) or "backgrounds" (MatchBackgrounds).
        footage_frames, output_frames: how many there are to choose from and how many are chosen.
        seconds: wall clock.
        cpu_s: processor time.
        memory_mib: most that was allocated at once, the result included; of a second run.
    """

    name: str
    footage_frames: int
    output_frames: int
    seconds: float
    cpu_s: float
    memory_mib: float


def head_motion(frames: int, seed: int) -> npt.NDArray[np.float64]:
    """Speed of a head that now rests and now moves, float64 [frames], 0 to 1."""
    noise = np.random.default_rng(seed).normal(size=frames + 2 * _RATE)
    slow = np.convolve(noise, np.hanning(2 * _RATE), mode="same")[_RATE:-_RATE]
    return np.asarray(np.clip(slow / np.abs(slow).max() + 0.3, 0.0, 1.0), np.float64)


def head_poses(frames: int, seed: int) -> npt.NDArray[np.float64]:
    """Head-pose vectors of a head that sways, float64 [frames, 6]: angles of some degrees, place and size of some pixels."""
    noise = np.random.default_rng(seed).normal(size=(frames + 2 * _RATE, 6))
    window = np.hanning(2 * _RATE)
    slow = np.stack([np.convolve(line, window, mode="same") for line in noise.T], axis=1)[_RATE:-_RATE]
    middle = np.array([0.0, 0.0, 0.0, 640.0, 400.0, 1.5])
    spread = np.array([0.06, 0.1, 0.04, 12.0, 6.0, 0.03])
    return np.asarray(middle + spread * slow / slow.std(axis=0), np.float64)


def pauses(frames: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return speech of 1 to 5 s with pauses of .2 to 1.5 s: bool [frames], True in pauses."""
    generator = np.random.default_rng(seed)
    silent = np.zeros(frames, np.bool_)
    place = 0
    while place < frames:
        place += int(generator.uniform(1.0, 5.0) * _RATE)
        pause = int(generator.uniform(0.2, 1.5) * _RATE)
        silent[place : place + pause] = True
        place += pause
    return silent


def measure_retiming(minutes: float) -> FrameChoiceTime:
    """Retime `minutes` of footage to as much speech."""
    frames = int(minutes * 60 * _RATE)
    blink = np.arange(frames) % (4 * _RATE) < 4
    motion, silent = head_motion(frames, 0), pauses(frames, 1)
    return _measured("retiming", frames, lambda: select_frames(motion, blink, silent))


def measure_backgrounds(minutes: float) -> FrameChoiceTime:
    """Match the poses of `minutes` of footage to as much predicted head motion."""
    frames = int(minutes * 60 * _RATE)
    footage, predicted = head_poses(frames, 0), head_poses(frames, 1)
    usable, cuts = np.ones(frames, np.bool_), np.zeros(0, np.int64)
    return _measured("backgrounds", frames, lambda: match_backgrounds(footage, usable, cuts, predicted).frame_indices)


def _measured(name: str, frames: int, choose: Callable[[], npt.NDArray[np.int64]]) -> FrameChoiceTime:
    wall, cpu = time.perf_counter(), time.process_time()
    chosen = choose()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tracemalloc.start()
    try:
        choose()
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    return FrameChoiceTime(name, frames, len(chosen), wall, cpu, peak)


def measure_frame_choice(minutes: float = MINUTES) -> tuple[FrameChoiceTime, ...]:
    """Both rows."""
    return measure_retiming(minutes), measure_backgrounds(minutes)


def lines_of_frame_choice(rows: tuple[FrameChoiceTime, ...]) -> list[str]:
    """One line a row for the terminal."""
    return [
        f"{row.name}, {row.output_frames / _RATE / 60:.0f} min of speech on {row.footage_frames / _RATE / 60:.0f} min of footage: "
        f"{row.seconds:.2f} s ({row.cpu_s:.2f} CPU), {row.memory_mib:.0f} MiB"
        for row in rows
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.frame_choice", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    print("\n".join(lines_of_frame_choice(measure_frame_choice(parser.parse_args().minutes))))


if __name__ == "__main__":
    main()
