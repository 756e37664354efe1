"""Speed and picture of every backend and precision: `python -m services.render.train.compare --model NAME --data SET --clip NAME`.

The table of backends/choice.py comes from this command. Milliseconds count the network alone, batch 1, medians over the frames:
processor time on one thread, which other work on the machine disturbs least, and time on the clock with one and two threads.
`picture` is the PSNR in the mouth box to ONNX Runtime in float32, `truth` is the PSNR to the footage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from services.common.array_types import UInt8
from services.common.errors import DubstageError
from services.render.backends.choice import BackendName
from services.render.backends.make import make_backend
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.models import load_models
from services.render.pairs import BASE, Pair
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.train.held_out import Clip, HeldOut, blended, clips_named
from services.render.train.metrics import frame_quality
from services.render.train.rooms import model_names, training_named
from services.render.types import Precision

_ROWS: Final[tuple[tuple[BackendName, Precision], ...]] = (
    ("onnxruntime", Precision.FLOAT32),
    ("onnxruntime", Precision.INT8),
    ("openvino", Precision.FLOAT32),
    ("openvino", Precision.BFLOAT16),
    ("openvino", Precision.INT8),
)
Pictures = list[UInt8]


@dataclass(frozen=True, slots=True)
class Run:
    """One backend over all frames.

    Attributes:
        clock_ms: median time per frame on the clock, milliseconds.
        processor_ms: median processor time per frame, all threads, milliseconds.
        pictures: uint8 [160, 160, 3] each, blended.
    """

    clock_ms: float
    processor_ms: float
    pictures: Pictures


def run(model: str, weights: Path, backend: BackendName, precision: Precision, threads: int, pairs: Sequence[Pair]) -> Run:
    """Draw all pairs with one backend and the prior's own state.

    Args:
        model: name of the model.
        weights: folder of exported models.
        backend: the backend.
        precision: number format of the arithmetic.
        threads: threads of one inference.
        pairs: frames to draw.

    Raises:
        InvalidRequest: this machine or the installed build cannot do that.
        ModelNotFound: the model was not exported in this precision.
    """
    made = make_backend(device="cpu", backend=backend, precision=precision, num_threads=threads)
    file = load_models(weights, made).files[model]
    state = np.zeros((1, *(file.input_shape(INPUT_STATE) or ())), np.float32)
    clock, processor, pictures = [], [], []
    for pair in pairs:
        started = time.perf_counter(), time.process_time()
        residual = made.infer(file.name, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: state})[OUTPUT_RESIDUAL]
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
        pictures.append(blended(pair, np.rint(pair.picture[..., BASE] + residual[0]).astype(np.float32)))
    return Run(float(np.median(clock)) * 1e3, float(np.median(processor)) * 1e3, pictures)


def print_table(model: str, weights: Path, held_out: Sequence[Clip], num_frames: int) -> None:
    """Print one line for each backend and precision.

    Args:
        model: name of the model.
        weights: folder of exported models.
        held_out: the clips.
        num_frames: frames of each clip, evenly spread.

    Raises:
        DubstageError: the model cannot be drawn with ONNX Runtime in float32.
    """
    read = training_named(model).held_out
    clips = [read(clip, num_frames) for clip in held_out]
    pairs = [pair for clip in clips for pair in clip.pairs]
    exact = run(model, weights, *_ROWS[0], 1, pairs)
    print("backend      precision  processor ms  1 thread ms  2 threads ms  picture dB  truth dB")
    for backend, precision in _ROWS:
        try:
            one, two = (run(model, weights, backend, precision, threads, pairs) for threads in (1, 2))
        except DubstageError as error:
            print(f"{backend:12} {precision:9}  {error.message}")
            continue
        picture, truth = (_mouth_db(clips, one.pictures, wanted) for wanted in (exact.pictures, [pair.target for pair in pairs]))
        times = f"{one.processor_ms:12.1f}  {one.clock_ms:11.1f}  {two.clock_ms:12.1f}"
        print(f"{backend:12} {precision:9}  {times}  {picture:10.1f}  {truth:8.2f}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=model_names(), required=True, help="model to measure")
    parser.add_argument("--data", type=Path, required=True, help="training set, made by dubstage trainset")
    parser.add_argument("--clip", action="append", required=True, metavar="NAME", help="name of a clip; may be repeated")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder of exported models. Default: %(default)s")
    parser.add_argument("--frames", type=int, default=30, help="frames of each clip, evenly spread. Default: %(default)s")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        print_table(given.model, given.weights, clips_named(given.data, given.clip), given.frames)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _mouth_db(clips: Sequence[HeldOut], made: Pictures, wanted: Pictures) -> float:
    points = [point for clip in clips for point in clip.landmarks]
    return float(np.mean([frame_quality(*frame).psnr_db for frame in zip(made, wanted, points, strict=True)]))


if __name__ == "__main__":
    main()
