"""`python -m research.bench`: the commands of a user, measured.

1. `actor create` and `dub` with a report, for every method, from 10 s of 720p footage: personalisation and end to end.
2. `python -m research.bench.components`: each stage alone, a live stream, renderers, fitting of the face model.
3. `python -m research.bench.concurrency`: the render stage under 1, 4 and 16 streams, in its process and on Triton.
4. `dub` of the 10 s and of 5 min without a report: peak memory.

Tables go to the terminal, and all rows to --out. For another size of the video, give --height; for some parts alone, --parts.
"""

from __future__ import annotations

import ast
import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from research.bench.runs import (
    DUBSTAGE,
    HEIGHT,
    CommandFailedError,
    default_clip,
    footage_parser,
    machine,
    make_footage,
    measure,
    measure_method,
    measured_environment,
    read_json,
    rows_of,
    table,
    tell,
    work_folder,
    write_json,
)
from services.common.methods import DEFAULT_METHOD, METHODS

PARTS: Final = ("methods", "components", "concurrency", "memory")

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Peak memory of the process tree of a dub without a report.

    Attributes:
        frames: frames of the video.
        command_s: time of the whole command, seconds.
        peak_memory_mib: peak memory, MiB.
    """

    frames: int
    command_s: float
    peak_memory_mib: float


def run(options: Namespace, work: Path) -> dict[str, Rows]:
    """Measure in a folder that holds nothing else, and return the rows of each part by its name.

    Args:
        options: options of `main`.
        work: for videos, logs, actors and artefacts.

    Raises:
        CommandFailedError: one of the commands failed.
        ValueError: there is no sound.
    """
    environment = measured_environment(work)
    clip, short, parts = options.clip or default_clip(), work / "short.mp4", dict[str, Rows]()
    frames = make_footage(clip, options.speech, options.seconds, short, options.height)
    tell(f"footage: {clip.name}, {frames} frames, {options.height} pixels high")

    def part(name: str, *arguments: str) -> None:
        out = work / f"{name}.json"
        command = [sys.executable, "-m", f"research.bench.{name}", *arguments, "--out", str(out)]
        measure(command, work / f"{name}.log", environment)
        parts.update(read_json(out))

    # The other parts use the actor of the first method.
    for method in options.methods if "methods" in options.parts else options.methods[:1]:
        row = measure_method(method, f"bench-{method}", short, work, environment)
        parts.setdefault("methods", []).extend(rows_of(row))
        tell(f"{method}: {row.frames_per_second:.1f} frames per second")
    if "components" in options.parts:
        tell("every stage alone, and live")
        part("components", f"bench-{options.methods[0]}", str(short))
    if "concurrency" in options.parts:
        tell("the render stage under concurrent streams")
        part("concurrency")
    if "memory" in options.parts:
        long = work / "long.mp4"
        videos = {short: frames, long: make_footage(clip, options.speech, options.long_seconds, long, options.height)}
        for video, count in videos.items():
            tell(f"dubbing {count} frames for the memory")
            dub = [
                *DUBSTAGE,
                "dub",
                str(video),
                "--actor",
                f"bench-{options.methods[0]}",
                "-o",
                str(work / f"{video.stem}_dub.mp4"),
            ]
            dubbed = measure(dub, work / f"memory_{video.stem}.log", environment)
            parts.setdefault("memory", []).extend(rows_of(PeakMemory(count, dubbed.wall_s, dubbed.peak_memory_mib)))
    return parts


def commands() -> str:
    """Return one line for each further benchmark: its module and the first sentence of its docstring."""
    lines = []
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "__name__ ==" in text and file != Path(__file__):
            first = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")
            lines.append(f"  python -m research.bench.{file.stem}\n      {first}")
    return "further benchmarks:\n" + "\n".join(lines)


def main() -> int:
    """Parse the command line, measure, print and write."""
    parser = footage_parser("python -m research.bench", __doc__)
    parser.formatter_class, parser.epilog = RawDescriptionHelpFormatter, commands()
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the short video")
    parser.add_argument("--long-seconds", type=float, default=300.0, help="length of the long video")
    parser.add_argument("--height", type=int, default=HEIGHT, help="height of the videos, an even number of pixels")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=sorted(METHODS, key=DEFAULT_METHOD.__ne__))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    parser.add_argument("--keep", type=Path, default=None, help="folder that keeps videos, logs and report")
    options = parser.parse_args()
    try:
        with work_folder(options.keep) as work:
            parts = run(options, work)
    except (CommandFailedError, ValueError, FileNotFoundError) as problem:
        tell(f"bench failed: {problem}")
        return 1
    for name, rows in parts.items():
        print(f"{name}\n\n{table(rows)}\n")
    write_json(options.out, {**parts, "machine": machine()})
    tell(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
