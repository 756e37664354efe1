"""Is the time left true? `python -m research.bench.progress`: ten dubs, their estimates against what came.

A clip is looped to videos of several lengths and sizes. Each video is dubbed as `dubstage dub` does, in a process of its own, with
other options each time. Every report of the dub is recorded with its time. At every hundredth of the real time, the estimated time
left is compared with the time that was really left. Each dub corrects the estimates of later dubs, as on a user's machine.
`--rounds 2` repeats the dubs, and only the last round is judged. Other work on the machine changes its speed, which nothing can
foresee: the load is printed beside the errors.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.api.in_process import dub
from gateway.api.progress import dub_steps
from gateway.dub.request.spec import LocalFiles, request_from
from gateway.operations.progress import StepCost, WholeProgress
from gateway.operations.step_paces import StepPaces
from research.bench.runs import default_clip, footage_parser, make_footage, rows_of, table, tell, work_folder, write_json
from services.common.methods import DEFAULT_METHOD, METHODS
from services.common.stderr import log_lines_on_stderr

ALLOWED: Final = 0.25
"""Most by which estimated and real time left may differ, as a part of the real time left."""
FIRST_SHARE: Final = 0.1
LAST_SHARE: Final = 0.9
"""Estimates are compared from the first to the last of these shares of the real time: later, a second is a large part."""
_LOOK_SHARE: Final = 0.01
"""Least share of the real time between two compared estimates."""
_OTHERS: Final = [name for name in METHODS if name != DEFAULT_METHOD]


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
class Recording:
    """Reports of one dub. Seconds count from the opening of the stages.

    Attributes:
        frames, megapixels: frames of the footage, and million pixels of a frame.
        reports: seconds, step, finished and all parts of every report.
        wall_s, cpu_s: wall-clock and processor seconds of the dub.
        load: mean of the last minute: processes that run or wait for a processor, those of the dub with them.
    """

    job: Job
    frames: int
    megapixels: float
    reports: Sequence[tuple[float, str, int, int]] = field(repr=False)
    wall_s: float
    cpu_s: float
    load: float


def spec_of(job: Job, video: Path, output: Path) -> DubSpec:
    """Return the spec of a dub."""
    return DubSpec(footage_uri=str(video), output_uri=str(output), method=job.method, skip_personalization=not job.personalize)


def steps_of(job: Job) -> Sequence[StepCost]:
    """Return the steps of a dub with their present costs."""
    request = request_from(spec_of(job, Path("footage.mp4"), Path("dub.mp4")), LocalFiles(), threads=1)
    return dub_steps(request, report=job.report)


def record(job: Job, video: Path, work: Path, name: str) -> Recording:
    """Dub a video and record the reports."""
    reports: list[tuple[float, str, int, int]] = []
    sizes: list[tuple[int, float]] = []

    def note(step: str, done: int, total: int) -> None:
        reports.append((time.monotonic(), step, done, total))

    def footage(frames: int, megapixels: float) -> None:
        sizes.append((frames, megapixels))

    cpu_s = time.process_time()
    dub(spec_of(job, video, work / f"{name}.mp4"), work / f"{name}-report" if job.report else None, note, footage)
    end = time.monotonic()
    # The first report says that the stages are being opened.
    start, *_ = reports[1]
    (frames, megapixels) = sizes[-1]
    return Recording(
        job=job,
        frames=frames,
        megapixels=megapixels,
        reports=[(at - start, step, done, total) for at, step, done, total in reports[1:]],
        wall_s=end - start,
        cpu_s=time.process_time() - cpu_s,
        load=os.getloadavg()[0],
    )


def looks_of(recording: Recording, steps: Sequence[StepCost], paces: StepPaces) -> list[tuple[float, float | None]]:
    """Estimate a dub at every report, and let its times correct the paces.

    Returns:
        Pairs of elapsed seconds and estimated seconds left; None: nothing was estimated yet.
    """
    now = 0.0
    whole = WholeProgress(steps, paces=paces.of(steps), clock=lambda: now)
    whole.footage(recording.frames, recording.megapixels)
    looks: list[tuple[float, float | None]] = []
    for at, step, done, total in recording.reports:
        now = at
        looks.append((at, whole.report(step, done, total).remaining_s))
    now = recording.wall_s
    paces.add(whole)
    return looks


def seconds_of_steps(recording: Recording) -> dict[str, float]:
    """Return the seconds from the first report of each step to the first report of the next step."""
    begun: dict[str, float] = {}
    for at, step, _, _ in recording.reports:
        begun.setdefault(step, at)
    edges = [*begun.values(), recording.wall_s]
    return {step: after - before for step, (before, after) in zip(begun, pairwise(edges), strict=True)}


def compared(looks: Sequence[tuple[float, float | None]], wall_s: float) -> tuple[float, float]:
    """Return the largest difference of estimated and real time left as a part of the real one, and the share within ALLOWED.

    Args:
        looks: pairs of elapsed seconds and estimated seconds left; None counts as a difference of 1.
        wall_s: seconds that the work took.
    """
    errors: list[float] = []
    last = 0.0
    for at, left in looks:
        if not FIRST_SHARE <= at / wall_s <= LAST_SHARE or at - last < _LOOK_SHARE * wall_s:
            continue
        last = at
        errors.append(abs(left - (wall_s - at)) / (wall_s - at) if left is not None else 1.0)
    return max(errors, default=1.0), sum(error <= ALLOWED for error in errors) / max(1, len(errors))


JOBS: Final = (
    Job(10, 720),
    Job(30, 360, personalize=False),
    Job(10, 1080, report=True),
    *(Job(8, 720, name, personalize=index % 2 == 0) for index, name in enumerate(_OTHERS)),
    Job(30, 720, personalize=False, report=True),
    Job(15, 540),
    Job(60, 270, personalize=False),
)
"""Short and long, small and large, with and without what a dub can leave out, and every method."""


def judged(recordings: Sequence[Recording], work: Path) -> bool:
    """Print the errors of each dub. Return whether those of the last round are within ALLOWED.

    Args:
        recordings: recorded dubs in their order: the jobs of every round.
        work: empty folder for the paces of this machine.
    """
    rows, errors = [], []
    for one in recordings:
        worst, within = compared(looks_of(one, steps_of(one.job), StepPaces(work, one.job.method)), one.wall_s)
        rows.append({"job": f"{one.job}", "seconds": one.wall_s, "load": one.load, "worst error": worst, "within": within})
        errors.append(worst)
    print(table(rows))
    return all(error <= ALLOWED for error in errors[-len(JOBS) :])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ten dubs. Return 0 if each estimate of the last round was within ALLOWED after the first tenth, otherwise 1."""
    parser = footage_parser("python -m research.bench.progress", __doc__)
    parser.add_argument("--rounds", type=int, default=1, help="times that the ten dubs run")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the recordings")
    parser.add_argument("--work", type=Path, default=None, help="folder for videos; without it, a folder that is removed")
    options = parser.parse_args(arguments)
    recordings: list[Recording] = []
    with work_folder(options.work) as work:
        for number, job in enumerate(JOBS * options.rounds):
            # Each dub learns the person anew.
            os.environ["XDG_DATA_HOME"] = str(work / f"data-{number}")
            video = work / f"{number}-footage.mp4"
            make_footage(options.clip or default_clip(), options.speech, job.seconds, video, job.height)
            # What a process does once, such as loading networks, is part of every dub of a user.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                recordings.append(process.submit(record, job, video, work, str(number)).result())
            tell(f"{job}: {recordings[-1].wall_s:.0f} s")
            if options.out is not None:
                write_json(options.out, rows_of(recordings))
        paces = work / "paces"
        paces.mkdir()
        return 0 if judged(recordings, paces) else 1


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        sys.exit(main())
