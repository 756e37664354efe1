"""The result of a bench: lines for the terminal and bench.json."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.stages.timing import StageTime
from research.bench.actors import lines_of_actors
from research.bench.concurrency import ConcurrentTimes, lines_of_concurrency
from research.bench.fitting import lines_of_fitting
from research.bench.inside import Inside
from research.bench.methods import MethodTime, lines_of_methods
from research.bench.paths import lines_of_paths
from research.bench.rasteriser import lines_of_rasteriser
from research.bench.renderer import lines_of_models


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """Results of the benchmark.

    Attributes:
        frames: of the short film.
        end_to_end_s: decode to mux of the short film, actor enrolled before, models loaded; seconds.
        cpu_s: processor seconds over the same span.
        command_s: the whole command, start of Python and loading of models included.
        personalize_seconds: enrolling and personalising a new actor from the short film, the whole command.
        peak_memory_mib_short, peak_memory_mib_long: of the dub's process tree; None where not run.
        long_frames: of the long film.
        inside: stages alone, a live stream, renderers, batches of many actors, fitting, frames for long speech, the rasteriser.
        methods: every method of the table on the short film, end to end.
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
    inside: Inside
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
            for stage in result.inside.stages
        ],
        "live": row_of(result.inside.live),
        "renderer_network": [asdict(row) for row in result.inside.renderer],
        "methods": [row_of(row) for row in result.methods],
        "renderer_models": [row_of(row) for row in result.inside.models],
        "renderer_actors": [row_of(row) for row in result.inside.actors],
        "fitting": row_of(result.inside.fitting),
        "paths": [row_of(row) for row in result.inside.paths],
        "rasteriser": [row_of(row) for row in result.inside.rasteriser],
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
    for stage in result.inside.stages:
        cpu = 1000.0 * stage.cpu_s / stage.frames if stage.frames else 0.0
        lines.append(f"{stage.name:<16}{stage.ms_per_frame:>12.2f}{stage.frames_per_second:>12.1f}{cpu:>16.2f}")
    whole = StageTime("end to end", result.end_to_end_s, result.cpu_s, result.frames)
    cpu = 1000.0 * whole.cpu_s / max(1, whole.frames)
    lines.append(f"{whole.name:<16}{whole.ms_per_frame:>12.2f}{whole.frames_per_second:>12.1f}{cpu:>16.2f}")
    live = result.inside.live
    lines.append(
        f"live: first frame {live.first_frame_ms:.0f} ms after its sound, 95 % within {live.late_ms:.0f} ms; "
        f"{live.sustained_ms:.1f} ms a frame sustained ({live.sustained_cpu_ms:.1f} CPU)"
    )
    for row in result.inside.renderer:
        mark = ", the default" if row.default else ""
        lines.append(
            f"renderer's network, {row.backend} {row.precision}: {row.ms_per_frame:.1f} ms a frame "
            f"({row.cpu_ms_per_frame:.1f} CPU){mark}"
        )
    lines.extend(lines_of_models(result.inside.models))
    lines.extend(lines_of_actors(result.inside.actors))
    lines.extend(lines_of_methods(result.methods))
    lines.extend(lines_of_fitting(result.inside.fitting))
    lines.extend(lines_of_paths(result.inside.paths))
    lines.extend(lines_of_rasteriser(result.inside.rasteriser))
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
