"""`python -m research.bench`: the commands of a user, measured.

1. `actor create` from 10 s of 720p footage: personalisation time.
2. `dub` of the 10 s with that actor and a report: time end to end.
3. `python -m research.bench.inside`: each stage alone, a live stream, the renderer's network on all backends, every renderer with
   its features, batches of many actors, fitting of the face model, the choice of frames for ten minutes of speech, the rasteriser.
4. 1 and 2 for every other method of the table.
5. `python -m research.bench.concurrency`: the render stage under 1, 4 and 16 streams, in its process and on Triton.
6. `dub` of the 10 s and of 5 min without a report: peak memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from research.bench.concurrency import read_concurrency
from research.bench.footage import default_clip, make_footage
from research.bench.inside import read_inside
from research.bench.methods import DUBSTAGE, measure_method
from research.bench.process import CommandFailedError, measure
from research.bench.result import BenchResult, lines_of, write_json
from research.bench.work import footage_parser, tell, work_folder
from services.common.methods import DEFAULT_METHOD, METHODS

ACTOR = "bench"


def run(clip: Path, speech: Path | None, seconds: float, long_seconds: float, work: Path) -> BenchResult:
    """Measure everything in a folder that holds nothing else.

    Args:
        clip: footage with one face.
        speech: new speech; None: the clip's own.
        seconds: of the short film.
        long_seconds: of the long film; 0 leaves it out.
        work: for films, logs, actors and artefacts.

    Raises:
        CommandFailedError: one of the commands failed.
        ValueError: there is no sound.
    """
    environment = {**os.environ, "XDG_DATA_HOME": str(work / "data")}
    short = work / "short.mp4"
    frames = make_footage(clip, speech, seconds, short)
    tell(f"footage: {clip.name}, {frames} frames of 1280 x 720")
    first = measure_method(DEFAULT_METHOD, ACTOR, short, work, environment)
    tell(f"{first.method}: actor personalised in {first.personalize_s:.1f} s, {first.frames_per_second:.1f} frames a second")

    def dub(film: Path, *options: str) -> list[str]:
        result = film.with_name(f"{film.stem}_dub.mp4")
        return [*DUBSTAGE, "dub", str(film), "--actor", ACTOR, "-o", str(result), *options]

    tell("every stage alone, and live")
    inside = work / "inside.json"
    measure([sys.executable, "-m", "research.bench.inside", ACTOR, str(short), str(inside)], work / "inside.log", environment)
    methods = [first]
    for method in [name for name in METHODS if name != DEFAULT_METHOD]:
        methods.append(measure_method(method, f"{ACTOR}-{method}", short, work, environment))
        tell(f"{method}: {methods[-1].frames_per_second:.1f} frames a second")
    tell("the render stage under concurrent streams")
    concurrency = work / "concurrency.json"
    measure([sys.executable, "-m", "research.bench.concurrency", str(concurrency)], work / "concurrency.log", environment)
    memory = measure(dub(short), work / "memory_short.log", environment)
    long_frames, long_memory = 0, None
    if long_seconds:
        film = work / "long.mp4"
        long_frames = make_footage(clip, speech, long_seconds, film)
        tell(f"dubbing {long_frames} frames for the memory figure")
        long_memory = measure(dub(film), work / "memory_long.log", environment).peak_memory_mib
    return BenchResult(
        frames=first.frames,
        end_to_end_s=first.end_to_end_s,
        cpu_s=first.cpu_s,
        command_s=memory.wall_s,
        personalize_seconds=first.personalize_s,
        peak_memory_mib_short=memory.peak_memory_mib,
        peak_memory_mib_long=long_memory,
        long_frames=long_frames,
        inside=read_inside(inside),
        concurrency=read_concurrency(concurrency),
        methods=tuple(methods),
    )


def main() -> int:
    """Parse the command line, measure, print and write."""
    parser = footage_parser("python -m research.bench", __doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the short film")
    parser.add_argument("--long-seconds", type=float, default=300.0, help="length of the long film; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    parser.add_argument("--keep", type=Path, default=None, help="folder that keeps films, logs and report")
    options = parser.parse_args()
    try:
        with work_folder(options.keep) as work:
            clip = options.clip or default_clip()
            result = run(clip, options.speech, options.seconds, options.long_seconds, work)
    except (CommandFailedError, ValueError, FileNotFoundError) as problem:
        tell(f"bench failed: {problem}")
        return 1
    print("\n".join(lines_of(result)))
    write_json(options.out, result)
    tell(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
