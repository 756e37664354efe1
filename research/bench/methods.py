"""One method from end to end, by its commands: an actor, and a dub of their footage."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from research.bench.process import measure

DUBSTAGE: Final = (sys.executable, "-m", "gateway.cli")


@dataclass(frozen=True, slots=True)
class MethodTime:
    """One row.

    Attributes:
        frames: of the film that was written.
        end_to_end_s: decode to mux, actor enrolled before, models loaded.
        cpu_s: processor time over the same span.
        personalize_s: enrolling and personalising the actor from the same film, the whole command.
        peak_memory_mib: of the dub's process tree.
    """

    method: str
    frames: int
    end_to_end_s: float
    cpu_s: float
    personalize_s: float
    peak_memory_mib: float

    @property
    def frames_per_second(self) -> float:
        """End to end."""
        return self.frames / self.end_to_end_s if self.end_to_end_s > 0.0 else 0.0


def measure_method(method: str, actor: str, film: Path, work: Path, environment: Mapping[str, str]) -> MethodTime:
    """Enrol an actor from a film, and dub the film with its own sound.

    Args:
        method: of the method table.
        actor: id of the new actor; its data stay.
        film: shows one face.
        work: for logs, the report and the dub.

    Raises:
        CommandFailedError: one of the commands failed.
    """
    create = [*DUBSTAGE, "actor", "create", actor, str(film), "--method", method]
    enrolled = measure(create, work / f"{actor}_create.log", environment)
    report = work / f"{actor}_report"
    dub = [*DUBSTAGE, "dub", str(film), "--actor", actor, "-o", str(work / f"{actor}.mp4"), "--report", str(report)]
    dubbed = measure(dub, work / f"{actor}_dub.log", environment)
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    times = document["times"]
    return MethodTime(
        method,
        frames=int(document["frames"]),
        end_to_end_s=float(times["end_to_end_s"]),
        cpu_s=float(times["cpu_s"]),
        personalize_s=enrolled.wall_s,
        peak_memory_mib=dubbed.peak_memory_mib,
    )


def lines_of_methods(rows: tuple[MethodTime, ...]) -> list[str]:
    """One line a method for the terminal."""
    return [
        f"method {row.method}: {row.frames_per_second:.1f} frames a second end to end "
        f"({1000.0 * row.cpu_s / max(1, row.frames):.1f} ms CPU a frame, at most {row.peak_memory_mib:.0f} MiB), "
        f"personalised in {row.personalize_s:.1f} s"
        for row in rows
    ]
