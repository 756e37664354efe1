"""`python -m research.bench`: the commands of a user, measured.

1. `actor create` from 10 s of 720p footage: personalisation time.
2. `dub` of the 10 s with that actor and a report: time end to end.
3. `python -m research.bench.components`: each stage alone, a live stream, the renderer's network on all backends, every renderer
   with its features, batches of many actors, fitting of the face model, the choice of frames for ten minutes of speech, the
   rasteriser.
4. 1 and 2 for every other method of the table.
5. `python -m research.bench.concurrency`: the render stage under 1, 4 and 16 streams, in its process and on Triton.
6. `dub` of the 10 s and of 5 min without a report: peak memory.

The result of a bench: lines for the terminal and bench.json.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.stages.timing import StageTime
from research.bench.actors import lines_of_actors
from research.bench.components import ComponentTimes, read_components
from research.bench.concurrency import ConcurrentTimes, lines_of_concurrency, read_concurrency
from research.bench.fitting import lines_of_fitting
from research.bench.frame_choice import lines_of_frame_choice
from research.bench.rasteriser import lines_of_rasteriser
from research.bench.renderer import lines_of_models
from research.bench.runs import (
    DUBSTAGE,
    CommandFailedError,
    MethodTime,
    default_clip,
    footage_parser,
    lines_of_methods,
    make_footage,
    measure,
    measure_method,
    tell,
    work_folder,
)
from services.common.methods import DEFAULT_METHOD, METHODS


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """Results of the benchmark.

    Attributes:
        frames: of the short video.
        end_to_end_s: decode to mux of the short video, actor enrolled before, models loaded; seconds.
        cpu_s: processor seconds over the same span.
        command_s: the whole command, start of Python and loading of models included.
        personalize_seconds: enrolling and personalising a new actor from the short video, the whole command.
        peak_memory_mib_short, peak_memory_mib_long: of the dub's process tree; None where not run.
        long_frames: of the long video.
        components: stages alone, a live stream, renderers, batches of many actors, fitting, frames for long speech, the rasteriser.
        methods: every method of the table on the short video, end to end.
        concurrency: the render stage under 1, 4 and 16 streams, in its process and on Triton; health checks meanwhile.
    """

    frames: int
    end_to_end_s: float
    cpu_s: float
    command_s: float
    personalize_seconds: float
    peak_memory_mib_short: float
    peak_memory_mib_long: float | None
    long_frames: int
    components: ComponentTimes
    concurrency: tuple[ConcurrentTimes, ...]
    methods: tuple[MethodTime, ...]

    @property
    def frames_per_second(self) -> float:
        """End to end."""
        return self.frames / self.end_to_end_s if self.end_to_end_s > 0.0 else 0.0


def to_json(result: BenchResult) -> dict[str, Any]:
    """bench.json as plain values."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    def row_of(row: Any) -> dict[str, Any]:
        return {name: value if isinstance(value, str) else rounded(value) for name, value in asdict(row).items()}

    return {
        "end_to_end_frames_per_second": rounded(result.frames_per_second),
        "personalize_seconds": rounded(result.personalize_seconds),
        "peak_memory_mib_10s": rounded(result.peak_memory_mib_short),
        "peak_memory_mib_5min": rounded(result.peak_memory_mib_long),
        "frames": result.frames,
        "end_to_end_seconds": rounded(result.end_to_end_s),
        "cpu_seconds": rounded(result.cpu_s),
        "command_seconds": rounded(result.command_s),
        "stages": [
            {
                "name": stage.name,
                "frames": stage.frames,
                "ms_per_frame": rounded(stage.ms_per_frame),
                "frames_per_second": rounded(stage.frames_per_second),
                "cpu_ms_per_frame": rounded(1000.0 * stage.cpu_s / stage.frames if stage.frames else 0.0),
            }
            for stage in result.components.stages
        ],
        "live": row_of(result.components.live),
        "renderer_network": [asdict(row) for row in result.components.renderer],
        "methods": [row_of(row) for row in result.methods],
        "renderer_models": [row_of(row) for row in result.components.models],
        "renderer_actors": [row_of(row) for row in result.components.actors],
        "fitting": row_of(result.components.fitting),
        "paths": [row_of(row) for row in result.components.frame_choice],
        "rasteriser": [row_of(row) for row in result.components.rasteriser],
        "render_concurrency": [row_of(row) for row in result.concurrency],
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def lines_of(result: BenchResult) -> list[str]:
    """One line a stage, then end to end, memory and personalisation."""
    head = f"{'stage':<16}{'ms a frame':>12}{'frames/s':>12}{'CPU ms a frame':>16}"
    lines = [head]
    for stage in result.components.stages:
        cpu = 1000.0 * stage.cpu_s / stage.frames if stage.frames else 0.0
        lines.append(f"{stage.name:<16}{stage.ms_per_frame:>12.2f}{stage.frames_per_second:>12.1f}{cpu:>16.2f}")
    whole = StageTime("end to end", result.end_to_end_s, result.cpu_s, result.frames)
    cpu = 1000.0 * whole.cpu_s / max(1, whole.frames)
    lines.append(f"{whole.name:<16}{whole.ms_per_frame:>12.2f}{whole.frames_per_second:>12.1f}{cpu:>16.2f}")
    live = result.components.live
    lines.append(
        f"live: first frame {live.first_frame_ms:.0f} ms after its sound, 95 % within {live.late_ms:.0f} ms; "
        f"{live.sustained_ms:.1f} ms a frame sustained ({live.sustained_cpu_ms:.1f} CPU)"
    )
    for row in result.components.renderer:
        mark = ", the default" if row.default else ""
        lines.append(
            f"renderer's network, {row.backend} {row.precision}: {row.ms_per_frame:.1f} ms a frame "
            f"({row.cpu_ms_per_frame:.1f} CPU){mark}"
        )
    lines.extend(lines_of_models(result.components.models))
    lines.extend(lines_of_actors(result.components.actors))
    lines.extend(lines_of_methods(result.methods))
    lines.extend(lines_of_fitting(result.components.fitting))
    lines.extend(lines_of_frame_choice(result.components.frame_choice))
    lines.extend(lines_of_rasteriser(result.components.rasteriser))
    lines.extend(lines_of_concurrency(result.concurrency))
    lines.append(f"personalisation {result.personalize_seconds:.1f} s; whole command {result.command_s:.1f} s")
    memory = f"peak memory {result.peak_memory_mib_short:.0f} MiB for {result.frames} frames"
    if result.peak_memory_mib_long is not None:
        change = 100.0 * (result.peak_memory_mib_long / result.peak_memory_mib_short - 1.0)
        memory += f", {result.peak_memory_mib_long:.0f} MiB for {result.long_frames} frames ({change:+.1f} %)"
    lines.append(memory)
    return lines


def write_json(path: Path, result: BenchResult) -> None:
    """Write bench.json; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")


ACTOR = "bench"


def run(clip: Path, speech: Path | None, seconds: float, long_seconds: float, work: Path) -> BenchResult:
    """Measure everything in a folder that holds nothing else.

    Args:
        clip: footage with one face.
        speech: new speech; None: the clip's own.
        seconds: of the short video.
        long_seconds: of the long video; 0 leaves it out.
        work: for videos, logs, actors and artefacts.

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

    def dub(video: Path, *options: str) -> list[str]:
        result = video.with_name(f"{video.stem}_dub.mp4")
        return [*DUBSTAGE, "dub", str(video), "--actor", ACTOR, "-o", str(result), *options]

    tell("every stage alone, and live")
    components = work / "components.json"
    measure(
        [sys.executable, "-m", "research.bench.components", ACTOR, str(short), str(components)],
        work / "components.log",
        environment,
    )
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
        video = work / "long.mp4"
        long_frames = make_footage(clip, speech, long_seconds, video)
        tell(f"dubbing {long_frames} frames for the memory figure")
        long_memory = measure(dub(video), work / "memory_long.log", environment).peak_memory_mib
    return BenchResult(
        frames=first.frames,
        end_to_end_s=first.end_to_end_s,
        cpu_s=first.cpu_s,
        command_s=memory.wall_s,
        personalize_seconds=first.personalize_s,
        peak_memory_mib_short=memory.peak_memory_mib,
        peak_memory_mib_long=long_memory,
        long_frames=long_frames,
        components=read_components(components),
        concurrency=read_concurrency(concurrency),
        methods=tuple(methods),
    )


def main() -> int:
    """Parse the command line, measure, print and write."""
    parser = footage_parser("python -m research.bench", __doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the short video")
    parser.add_argument("--long-seconds", type=float, default=300.0, help="length of the long video; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    parser.add_argument("--keep", type=Path, default=None, help="folder that keeps videos, logs and report")
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
