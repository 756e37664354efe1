"""The renderers on a GPU: `python -m research.bench.gpu OUT`, in less than ten minutes and without a network.

Writes OUT/gpu.json and OUT/gpu.md: whether the GPU draws what the processor draws, frames per second by batch and by number of
actors, the render stage under concurrent streams, the same behind Triton where `.triton` holds a server, and a whole dub with a
personalisation on the processor and on the GPU. `--device cpu` runs everything on the processor, to try the bench.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from research.bench.concurrency import ConcurrentTimes, measure_concurrency, settings_of
from research.bench.progress import Job, record, seconds_of_steps
from research.bench.renderer import batch_of, frames_of
from research.bench.runs import default_clip, footage_parser, machine, make_footage, rows_of, table, tell, work_folder, write_json
from research.render.models import load_models
from services.common.methods import DEFAULT_METHOD, METHODS
from services.common.stderr import log_lines_on_stderr
from services.render.backends.base import Backend, Device
from services.render.backends.model_files import WEIGHTS_FOLDER, ModelFile
from services.render.streams import make_backend
from services.render.types import Precision

BATCHES: Final = (1, 4, 16, 64)
PARITY_MEAN: Final = 0.1
PARITY_MAX: Final = 3.0
"""Largest mean and largest single difference between a GPU and a processor, grey levels of the network's outputs."""
_PARITY_FRAMES: Final = 16
_ACTORS: Final = 16
_SECONDS: Final = 1.0
_LOAD_S: Final = 3.0
_DUB_SECONDS: Final = 10.0
_PART_S: Final = 240.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Difference of one network's outputs between the device and the processor, both in float32.

    Attributes:
        model: name of the model.
        mean, largest: mean and largest absolute difference, grey levels.
        repeats: whether a second process gave the same bytes on the device.
        alone: whether a frame computed alone on the device equals the frame in its batch.
        sha256: digest of the outputs on the device.
    """

    model: str
    mean: float
    largest: float
    repeats: bool
    alone: bool
    sha256: str

    @property
    def holds(self) -> bool:
        """Whether both differences are allowed."""
        return self.mean <= PARITY_MEAN and self.largest <= PARITY_MAX


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Frames a second of one network in one process, with the copies to the device and back.

    Attributes:
        model: name of the model.
        batch: frames of an inference.
        threads: threads that ask for inferences at the same time.
        one, many: frames a second where all frames of a batch are of one actor, and where each is of another.
    """

    model: str
    batch: int
    threads: int
    one: float
    many: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DubTimes:
    """One whole dub of `_DUB_SECONDS` seconds in 1280 x 720, with the person's personalisation.

    Attributes:
        method: method of the dub.
        device: device of networks and personalisation.
        wall_s: seconds of the dub.
        personalize_s: seconds of the renderer's personalisation.
        dub_s: seconds of drawing, compositing and encoding.
        cpu_s: processor seconds of the dub.
    """

    method: str
    device: Device
    wall_s: float
    personalize_s: float
    dub_s: float
    cpu_s: float


@dataclass(kw_only=True, slots=True)
class Report:
    """Everything that was measured: rows of each part by its name; `failures` says what could not be measured."""

    machine: dict[str, str]
    device: Device
    rows: dict[str, list[Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def describe_machine() -> dict[str, str]:
    """Return what computed the figures: GPU and driver, processors, ONNX Runtime."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        gpu = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        gpu = "none"
    return {**machine(), "gpu": gpu, "onnxruntime": ort.__version__, "providers": ", ".join(ort.get_available_providers())}


def _backend(device: Device) -> tuple[Backend, dict[str, ModelFile]]:
    backend = make_backend(device=device, backend="onnxruntime", precision=Precision.FLOAT32, num_threads=os.cpu_count() or 1)
    return backend, dict(sorted(load_models(WEIGHTS_FOLDER, backend).files.items()))


def measure_parity(device: Device) -> list[Parity]:
    """Compare the outputs of every network on the device with those on the processor."""
    backend, models = _backend(device)
    reference, _ = _backend("cpu")
    rows = []
    for name, model in models.items():
        frames = frames_of(model, 0, _PARITY_FRAMES)
        inputs = batch_of(model, frames)
        expected, outputs = reference.infer(name, inputs), backend.infer(name, inputs)
        first = backend.infer(name, batch_of(model, frames[:1]))
        differences = [np.abs(outputs[key].astype(np.float64) - expected[key]) for key in expected]
        rows.append(
            Parity(
                model=name,
                mean=float(np.mean([one.mean() for one in differences])),
                largest=float(max(one.max() for one in differences)),
                repeats=False,
                alone=all(np.array_equal(outputs[key][:1], first[key]) for key in outputs),
                sha256=hashlib.sha256(b"".join(outputs[key].tobytes() for key in sorted(outputs))).hexdigest(),
            )
        )
    return rows


def measure_throughput(device: Device) -> list[Throughput]:
    """Measure every network by batch, with one thread and, at the largest batch, with four."""
    backend, models = _backend(device)
    rows = []
    for name, model in models.items():
        # Frames of 64 actors take long to draw: the frames of 16 are repeated.
        people = [frames_of(model, seed, 1)[0] for seed in range(_ACTORS)]
        for batch, threads in (*((size, 1) for size in BATCHES), (BATCHES[-1], 4)):
            one = _frames_per_second(backend, name, batch_of(model, [people[0]] * batch), batch, threads)
            many = batch_of(model, [people[index % _ACTORS] for index in range(batch)])
            rows.append(
                Throughput(
                    model=name,
                    batch=batch,
                    threads=threads,
                    one=one,
                    many=_frames_per_second(backend, name, many, batch, threads),
                )
            )
    return rows


def _frames_per_second(backend: Backend, name: str, inputs: dict[str, Any], batch: int, threads: int) -> float:
    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            backend.infer(name, inputs)
            done += batch
        return done

    backend.infer(name, inputs)
    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        end = begin + _SECONDS
        total = sum(pool.map(work, range(threads)))
    return total / (time.perf_counter() - begin)


def measure_streams(device: Device, work: Path) -> list[ConcurrentTimes]:
    """Measure the render stage, a process of its own, under concurrent streams, alone and in front of a Triton of this machine."""
    return list(measure_concurrency(work, _LOAD_S, device))


def measure_dub(method: str, device: Device, video: Path, work: Path) -> list[DubTimes]:
    """Dub a video with a personalisation; networks and searches run on the device. Changes the environment of this process."""
    os.environ |= {
        "DUBSTAGE_DEVICE": device,
        "DUBSTAGE_PERSONALIZE_DEVICE": device,
        "XDG_DATA_HOME": str(work / f"data-{method}-{device}"),
        **settings_of(device),
    }
    folder = work / f"{method}-{device}"
    folder.mkdir()
    result = record(Job(_DUB_SECONDS, 720, method), video, folder, "dub")
    steps = seconds_of_steps(result)
    times = DubTimes(
        method=method,
        device=device,
        wall_s=result.wall_s,
        personalize_s=steps.get("enrol renderer", 0.0),
        dub_s=steps["dub"],
        cpu_s=result.cpu_s,
    )
    return [times]


def page(report: Report) -> str:
    """Return the figures as a page in Markdown."""
    of = report.machine
    lines = [
        "# Renderers on a GPU",
        f"GPU: {of['gpu']}; {of['processors']} processors, ONNX Runtime {of['onnxruntime']}; {report.device}.",
        f"Differences to the processor in grey levels. Allowed: {PARITY_MEAN} in the mean, {PARITY_MAX} at one pixel.",
        *(f"## {name}\n\n{table(rows_of(rows))}" for name, rows in report.rows.items()),
        *(f"- **{name} failed**: {why}" for name, why in report.failures.items()),
    ]
    return "\n\n".join(lines) + "\n"


def measure(device: Device, out: Path, *, footage: Path | None, speech: Path | None, methods: Sequence[str]) -> Report:
    """Measure everything, each part in a process of its own, and write the two files after each part.

    A part that fails, even one that ends its process, is named in the report and costs no other part.
    """
    report = Report(machine=describe_machine(), device=device)
    out.mkdir(parents=True, exist_ok=True)

    def part(name: str, work: Callable[..., list[Any]], *arguments: Any, of: str = "") -> list[Any]:
        tell(name)
        rows: list[Any] = []
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows = process.submit(work, *arguments).result(timeout=_PART_S)
        except Exception as problem:
            report.failures[name] = f"{type(problem).__name__}: {problem}"[:400]
        tell("\n".join(map(str, rows)) or report.failures.get(name, ""))
        report.rows.setdefault(of or name, []).extend(rows)
        write_json(out / "gpu.json", asdict(report))
        (out / "gpu.md").write_text(page(report), encoding="utf-8")
        return rows

    with work_folder(None) as work:
        part("parity", measure_parity, device)
        again = {row.model: row.sha256 for row in part("parity again", measure_parity, device)}
        report.rows["parity"] = [replace(row, repeats=row.sha256 == again.get(row.model)) for row in report.rows["parity"]]
        del report.rows["parity again"]
        part("throughput", measure_throughput, device)
        part("streams", measure_streams, device, work)
        video = work / "footage.mp4"
        make_footage(footage or default_clip(), speech, _DUB_SECONDS, video)
        for method, where in (*((method, device) for method in methods), (methods[0], "cpu")):
            part(f"dub {method} {where}", measure_dub, method, where, video, work, of="dubs")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 if a part failed or the GPU draws something else than the processor."""
    parser = footage_parser("python -m research.bench.gpu", __doc__)
    parser.add_argument("out", type=Path, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--methods", nargs="*", default=[DEFAULT_METHOD], choices=list(METHODS), help="methods of the whole dubs")
    options = parser.parse_args(arguments)
    report = measure(options.device, options.out, footage=options.clip, speech=options.speech, methods=options.methods)
    print((options.out / "gpu.md").read_text(encoding="utf-8"))
    return 0 if not report.failures and all(row.holds for row in report.rows["parity"]) else 1


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        sys.exit(main())
