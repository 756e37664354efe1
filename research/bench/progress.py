"""Is the time left true? `python -m research.bench.progress`: ten dubs, their estimates against what came.

A clip is looped to videos of several lengths and sizes. Each video is dubbed as `dubstage dub` does, with other options each time.
Whenever a hundredth more of the work is finished, the estimated time left is compared with the time that was really left.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.in_process import LocalFiles, dub
from gateway.api.messages import dub_request_from
from gateway.api.progress import dub_steps
from gateway.operations.progress import WholeProgress
from research.bench.runs import default_clip, footage_parser, make_footage, tell, work_folder
from services.common.methods import DEFAULT_METHOD, METHODS

ALLOWED: Final = 0.25
"""Most by which estimated and real time left may differ, as a part of the real time left."""
FIRST_SHARE: Final = 0.1
LAST_SHARE: Final = 0.9
"""Estimates are compared from the first to the last of these shares of the real time: later, a second is a large part."""


@dataclass(frozen=True, slots=True)
class Job:
    """One dub.

    Attributes:
        seconds, height: length and height of the video.
        method: method of the dub.
        personalize: whether the networks are adapted to the person.
        report: whether a report is written.
    """

    seconds: float
    height: int
    method: str = DEFAULT_METHOD
    personalize: bool = True
    report: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """Estimates of one dub.

    Attributes:
        wall_s: time of the dub after the stages are open, seconds.
        steps: seconds and processor seconds from the first report of each step to the first report of the next one.
        looks: pairs of elapsed seconds and estimated seconds left; None: nothing was estimated yet.
        worst: largest difference of estimated and real time left between FIRST_SHARE and LAST_SHARE, as a part of the real one.
        within: share of these looks with a difference of at most ALLOWED.
    """

    job: Job
    wall_s: float
    steps: dict[str, tuple[float, float]]
    looks: Sequence[tuple[float, float | None]] = field(repr=False)
    worst: float
    within: float


def run(number: int, job: Job, video: Path, work: Path) -> JobResult:
    """Dub a video and compare the estimates with the time that it took."""
    message = pb.CreateDubRequest(
        footage_uri=str(video),
        output_uri=str(work / f"{number}.mp4"),
        method=job.method,
        skip_personalization=not job.personalize,
    )
    request = dub_request_from(message, LocalFiles(), None, threads=os.cpu_count() or 1)
    whole = WholeProgress(dub_steps(request, report=job.report))
    looks: list[tuple[float, float | None]] = []
    begun: dict[str, tuple[float, float]] = {}
    last = -1.0
    start, cpu = time.monotonic(), time.process_time()

    def spent() -> tuple[float, float]:
        return time.monotonic() - start, time.process_time() - cpu

    def look(step: str, done: int, total: int) -> None:
        nonlocal last
        now = spent()
        begun.setdefault(step, now)
        state = whole.report(step, done, total)
        if state.fraction >= last + 0.01:
            last = state.fraction
            looks.append((now[0], state.remaining_s))

    dub(message, work / f"{number}-report" if job.report else None, look, whole.footage)
    end = spent()
    edges = [*begun.values(), end]
    steps = {
        name: (round(after[0] - before[0], 2), round(after[1] - before[1], 2))
        for name, (before, after) in zip(begun, pairwise(edges), strict=True)
    }
    # The work begins when the stages are open.
    opened = steps.pop("start")[0]
    looks = [(at - opened, left) for at, left in looks if at > opened]
    worst, within = compared(looks, end[0] - opened)
    return JobResult(job=job, wall_s=end[0] - opened, steps=steps, looks=looks, worst=worst, within=within)


def compared(looks: Sequence[tuple[float, float | None]], wall_s: float) -> tuple[float, float]:
    """Return the largest difference of estimated and real time left as a part of the real one, and the share within ALLOWED.

    Args:
        looks: pairs of elapsed seconds and estimated seconds left; None counts as a difference of 1.
        wall_s: seconds that the work took.
    """
    errors = [
        abs(left - (wall_s - at)) / (wall_s - at) if left is not None else 1.0
        for at, left in looks
        if FIRST_SHARE <= at / wall_s <= LAST_SHARE
    ]
    return max(errors, default=1.0), sum(error <= ALLOWED for error in errors) / max(1, len(errors))


_OTHERS: Final = [name for name in METHODS if name != DEFAULT_METHOD]
JOBS: Final = (
    Job(10, 720),
    Job(30, 360, personalize=False),
    Job(10, 1080, report=True),
    *(Job(8, 720, name, personalize=place % 2 == 0) for place, name in enumerate(_OTHERS)),
    Job(30, 720, personalize=False, report=True),
    Job(15, 540),
    Job(60, 270, personalize=False),
)
"""Short and long, small and large, with and without what a dub can leave out, and every method."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ten dubs. Return 0 if each estimate after the first tenth was within ALLOWED, otherwise 1."""
    parser = footage_parser("python -m research.bench.progress", __doc__)
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures")
    parser.add_argument("--work", type=Path, default=None, help="folder for videos; without it, a folder that is removed")
    options = parser.parse_args(arguments)
    results = []
    with work_folder(options.work) as work:
        os.environ["XDG_DATA_HOME"] = str(work / "data")
        for number, job in enumerate(JOBS):
            video = work / f"{number}-footage.mp4"
            make_footage(options.clip or default_clip(), options.speech, job.seconds, video, job.height)
            results.append(run(number, job, video, work))
            tell(f"{job}: {results[-1].wall_s:.0f} s, worst {results[-1].worst:.2f}, within {results[-1].within:.2f}")
            if options.out is not None:
                options.out.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return 0 if all(result.worst <= ALLOWED for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
