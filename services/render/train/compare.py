"""Speed and picture of every backend and precision: `python -m services.render.train.compare --data SET ...`.

The table behind backends/choice.py. Milliseconds are those of the network alone, batch 1, medians over the frames: of processor
time on one thread, which other work on the machine disturbs least, and on the clock with one and two threads. `picture` is the PSNR
in the mouth box to ONNX Runtime in float32, `truth` that to the footage.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.common.errors import DubstageError
from services.render.adapt.pairs import Pair
from services.render.backends.choice import BackendName
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.models import load_models, make_backend
from services.render.render import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, default_state
from services.render.train.held_out import HeldOut, blended, read_held_out
from services.render.train.metrics import frame_quality
from services.render.types import Precision

_ROWS: tuple[tuple[BackendName, Precision], ...] = (
    ("onnxruntime", Precision.FLOAT32),
    ("onnxruntime", Precision.INT8),
    ("openvino", Precision.FLOAT32),
    ("openvino", Precision.BFLOAT16),
    ("openvino", Precision.INT8),
)
Pictures = list[npt.NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Run:
    """One backend over all frames.

    Attributes:
        clock_ms: median milliseconds a frame.
        processor_ms: likewise of processor time, all threads.
        pictures: uint8 [160, 160, 3] each, blended.
    """

    clock_ms: float
    processor_ms: float
    pictures: Pictures


def run(weights: Path, backend: BackendName, precision: Precision, threads: int, pairs: Sequence[Pair]) -> Run:
    """Draw all pairs with one backend and the prior's own state."""
    made = make_backend(device="cpu", backend=backend, precision=precision, num_threads=threads)
    file = load_models(weights, made).files["ugc"]
    state = default_state(file)[None]
    clock, processor, pictures = [], [], []
    for pair in pairs:
        started = time.perf_counter(), time.process_time()
        residual = made.infer(file.name, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: state})[OUTPUT_RESIDUAL]
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
        pictures.append(blended(pair, np.rint(pair.picture[..., 3:6] + residual[0]).astype(np.float32)))
    return Run(float(np.median(clock)) * 1e3, float(np.median(processor)) * 1e3, pictures)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument("--clip", nargs=2, action="append", required=True, metavar=("NAME", "USE"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER)
    parser.add_argument("--frames", type=int, default=30, help="frames of each clip")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    clips = [read_held_out(given.data, name, use=use, num_frames=given.frames) for name, use in given.clip]
    pairs = [pair for clip in clips for pair in clip.pairs]
    exact = run(given.weights, *_ROWS[0], 1, pairs)
    print("backend      precision  processor ms  1 thread ms  2 threads ms  picture dB  truth dB")
    for backend, precision in _ROWS:
        try:
            one, two = (run(given.weights, backend, precision, threads, pairs) for threads in (1, 2))
        except DubstageError as error:
            print(f"{backend:12} {precision:9}  {error.message}")
            continue
        picture, truth = (_mouth_db(clips, one.pictures, wanted) for wanted in (exact.pictures, [pair.target for pair in pairs]))
        times = f"{one.processor_ms:12.1f}  {one.clock_ms:11.1f}  {two.clock_ms:12.1f}"
        print(f"{backend:12} {precision:9}  {times}  {picture:10.1f}  {truth:8.2f}", flush=True)


def _mouth_db(clips: Sequence[HeldOut], made: Pictures, wanted: Pictures) -> float:
    points = [point for clip in clips for point in clip.landmarks]
    return float(np.mean([frame_quality(*frame).psnr_db for frame in zip(made, wanted, points, strict=True)]))


if __name__ == "__main__":
    main()
