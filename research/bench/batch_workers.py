"""Throughput of a batch by number of workers: `python -m research.bench.batch_workers [--clip FILE]`.

The same shots are dubbed by one worker on one processor core, and by N workers on N cores. The time from the beginning of the first
shot to the end of the last one is compared. Workers load their models before that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from research.bench.runs import DUBSTAGE, default_clip, make_footage, measure, read_json, work_folder

SHOTS: Final = 8
SHOT_S: Final = 5.0
LEAST_SHARE: Final = 0.85
"""Least throughput of N workers, as a part of N times that of one."""


def dub_batch(folder: Path, shots: Sequence[Path], *, workers: int) -> float:
    """Dub shots with as many workers as cores; return the seconds from the beginning of the first shot to the end of the last.

    Args:
        folder: empty folder for videos and records.
        shots: footage of each shot, with sound. No two are equal: of equal shots, one worker waits for the other.
        workers: number of workers and of cores.

    Raises:
        CommandFailedError: a command failed.
    """
    manifest = folder / "night.jsonl"
    rows = [{"id": shot.stem, "footage": str(shot), "output": f"{shot.stem}_dub.mp4", "personalize": False} for shot in shots]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cores = sorted(os.sched_getaffinity(0))[:workers]
    # Each shot computes in one thread, so that the cores are what the workers share.
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data"), "DUBSTAGE_COMPUTE_THREADS": "1"}
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores)), *DUBSTAGE, "batch"]
    measure([*pinned, "submit", str(manifest), "--workers", str(workers)], folder / "submit.log", environment)
    measure([*pinned, "report", "night", str(folder / "report")], folder / "report.log", environment)
    records = read_json(folder / "report" / "shots.json")["shots"]
    began, ended = ([datetime.fromisoformat(record[name]) for record in records] for name in ("begun_at", "ended_at"))
    return (max(ended) - min(began)).total_seconds()


def main() -> int:
    """Parse the command line, measure, and print; 1 if N workers have less than LEAST_SHARE times N of the throughput of one."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.batch_workers", description=__doc__)
    parser.add_argument("--clip", type=Path, default=None, help="footage with one face, and sound")
    parser.add_argument("--shots", type=int, default=SHOTS, help="number of shots")
    parser.add_argument(
        "--seconds", type=float, default=SHOT_S, help="length of the first shot; each further one is a frame longer"
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="N, workers of the second batch")
    options = parser.parse_args()
    with work_folder(None) as work:
        shots = [work / f"shot{number}.mp4" for number in range(options.shots)]
        for number, shot in enumerate(shots):
            make_footage(options.clip or default_clip(), None, options.seconds + number / 25.0, shot)
        seconds = []
        for workers in (1, options.workers):
            folder = work / f"{workers}"
            folder.mkdir()
            seconds.append(dub_batch(folder, shots, workers=workers))
    share = seconds[0] / seconds[1] / options.workers
    print(f"{options.shots} shots: one worker {seconds[0]:.1f} s, {options.workers} workers {seconds[1]:.1f} s")
    print(f"{share:.2f} of {options.workers} times the throughput of one worker")
    return 0 if share >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
