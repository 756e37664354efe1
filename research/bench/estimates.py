"""Are estimates right? `python -m research.bench.estimates`: `dubstage plan` of ten clips against their dubs.

Each clip's beginning is planned and dubbed by the commands of a user, in a data folder of its own. Processor time is compared,
since wall-clock time depends on other work. A machine corrects estimates by its earlier dubs: here, by the nine other dubs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import av

from gateway.dub.state.costs import PaceFile
from research.bench.runs import DUBSTAGE, default_clip, measure, rows_of, tell, work_folder, write_json
from tests.system.dubbing import first_seconds

ALLOWED: Final = 0.25
"""Most by which estimated and measured values may differ, as a part of the measured value."""
CLIPS: Final = (
    *(f"people/dev_{number}.mp4" for number in range(1, 8)),
    "video/hp_31.mp4",
    "video/vr_face5.mp4",
    "grid/more/s7_bbal2p.mp4",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipResult:
    """Estimated and measured values of one dub.

    Attributes:
        estimated_frames, frames: frames of the video.
        estimated_s, processor_s: processor time of the dub, seconds. The estimate is by the figures alone.
        estimated_bytes, memory_bytes: largest memory of the process.
        estimated_disk_bytes, disk_bytes: most bytes on the disk, with the video.
    """

    clip: str
    estimated_frames: int
    frames: int
    estimated_s: float
    processor_s: float
    estimated_bytes: int
    memory_bytes: int
    estimated_disk_bytes: int
    disk_bytes: int


def bytes_below(folder: Path) -> int:
    """Return the bytes of all files in a folder. Files and folders that go meanwhile count as nothing."""
    total = 0
    # Path.rglob fails if a folder goes.
    for root, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(root, file)).st_size
    return total


def run(clip: Path, speech: Path, seconds: float, work: Path, more: Sequence[str]) -> ClipResult:
    """Plan and dub the beginning of a clip.

    Args:
        clip: the clip.
        speech: speech of the dub.
        seconds: length of the beginning.
        work: empty folder.
        more: further options of both commands.

    Raises:
        CommandFailedError: the dub failed.
        subprocess.CalledProcessError: the plan failed.
    """
    data, video = work / "data", work / clip.name
    data.mkdir(parents=True)
    environment = {**os.environ, "DUBSTAGE_DATA_DIR": str(data)}
    first_seconds(clip, video, seconds)
    asked = [str(video), "--audio", str(speech), "-o", str(data / "dub.mp4"), *more]
    planned = subprocess.run([*DUBSTAGE, "plan", *asked, "--json"], env=environment, check=True, capture_output=True)
    # Protobuf's JSON writes int64 as texts, and durations as seconds with an `s`.
    estimate = json.loads(planned.stdout)
    processor_s = float(estimate["processorDuration"].removesuffix("s"))
    before, sizes = bytes_below(data), [0]
    dubbed = measure([*DUBSTAGE, "dub", *asked], work / "dub.log", environment, lambda: sizes.append(bytes_below(data)))
    # The dub has stored its processor time over the estimate of the figures alone.
    ratio = PaceFile(data).read().processor
    with av.open(str(data / "dub.mp4")) as written:
        frames = sum(1 for _ in written.decode(video=0))
    return ClipResult(
        clip=clip.name,
        estimated_frames=int(estimate["numFrames"]),
        frames=frames,
        estimated_s=processor_s,
        processor_s=ratio * processor_s,
        estimated_bytes=int(estimate["memoryBytes"]),
        memory_bytes=int(dubbed.peak_memory_mib * 2**20),
        estimated_disk_bytes=int(estimate["diskBytes"]),
        disk_bytes=max(sizes) - before,
    )


def errors_of(results: Sequence[ClipResult]) -> dict[str, list[float]]:
    """Return the errors of the estimates as parts of the measured values, by subject, in the order of the clips."""
    ratios = [one.processor_s / one.estimated_s for one in results]
    others = [median([*ratios[:index], *ratios[index + 1 :]]) if len(ratios) > 1 else 1.0 for index in range(len(ratios))]
    return {
        "frames": [one.estimated_frames / one.frames - 1 for one in results],
        "processor time, by the figures alone": [1 / ratio - 1 for ratio in ratios],
        "processor time, corrected by the other dubs": [other / ratio - 1 for other, ratio in zip(others, ratios, strict=True)],
        "memory": [one.estimated_bytes / one.memory_bytes - 1 for one in results],
        "disk": [one.estimated_disk_bytes / one.disk_bytes - 1 for one in results],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan and dub the clips. Return 0 if every corrected estimate is within ALLOWED, otherwise 1."""
    parser = ArgumentParser(prog="python -m research.bench.estimates", description=__doc__)
    parser.add_argument("--clips", type=Path, default=default_clip().parents[1], help="folder of the test clips")
    parser.add_argument("--speech", type=Path, default=Path("gateway/cli/demo_speech.flac"), help="speech of the dubs")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the clips")
    parser.add_argument("--personalize", action="store_true", help="adapt the networks to each person")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    more = () if options.personalize else ("--no-personalize",)
    results: list[ClipResult] = []
    with work_folder(None) as work:
        for number, name in enumerate(CLIPS):
            results.append(run(options.clips / name, options.speech, options.seconds, work / str(number), more))
            tell(f"{results[-1]}")
            if options.out is not None:
                write_json(options.out, rows_of(results))
    by_subject = errors_of(results)
    for subject, errors in by_subject.items():
        print(f"{subject}: {100 * min(errors):+.0f} % to {100 * max(errors):+.0f} %")
    judged = [error for subject, errors in by_subject.items() if "alone" not in subject for error in errors]
    return 0 if all(abs(error) <= ALLOWED for error in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
