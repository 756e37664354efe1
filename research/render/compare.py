"""Speed and picture of every backend and precision: `python -m research.render.compare --model NAME --data SET --clip NAME`.

The figures of docs/decisions/0011-backend-per-processor.md come from this command. Milliseconds are processor time of the network
alone, all threads, batch 1, medians over the frames. Each frame is computed by all backends in turn, so other work on the machine
disturbs all of them alike; `ratio` is the median over the frames of the time as a share of the time of ONNX Runtime in int8.
`load` is the processor time of loading the network, seconds. `picture` is the PSNR in the mouth box to ONNX Runtime in float32,
`truth` is the PSNR to the footage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from research.render.held_out import Clip, HeldOut, blended, clips_named, frame_quality
from research.render.training import model_names, training_named
from research.training.command import command_line
from services.common.array_types import UInt8
from services.common.errors import DubstageError
from services.render.backends.base import BACKEND_CHOICES, PLAIN_CHOICE, Backend, BackendChoice, default_choice, this_processor
from services.render.backends.model_files import (
    INPUT_PICTURES,
    INPUT_STATE,
    OUTPUT_RESIDUAL,
    WEIGHTS_FOLDER,
    ModelFile,
    read_models,
)
from services.render.pairs import BASE, Pair
from services.render.streams import make_backend

_THREADS = (1, 2)
Pictures = list[UInt8]


@dataclass(slots=True, eq=False)
class BackendRun:
    """One backend over all frames.

    Attributes:
        choice: backend and precision.
        backend: the backend, with the model loaded.
        file: the exported network.
        load_s: processor time of loading the network, seconds.
        processor_ms: processor time of each frame, all threads, milliseconds.
        pictures: uint8 [160, 160, 3] each, blended.
    """

    choice: BackendChoice
    backend: Backend
    file: ModelFile
    load_s: float
    processor_ms: list[float] = field(default_factory=list)
    pictures: Pictures = field(default_factory=list)

    def draw(self, pair: Pair) -> None:
        """Draw a frame with the prior's own state and note time and picture."""
        state = np.zeros((1, *(self.file.input_shape(INPUT_STATE) or ())), np.float32)
        inputs: dict[str, npt.NDArray[np.generic]] = {INPUT_PICTURES: pair.picture[None], INPUT_STATE: state}
        started = time.process_time()
        residual = self.backend.infer(self.file.name, inputs)[OUTPUT_RESIDUAL]
        self.processor_ms.append(1e3 * (time.process_time() - started))
        self.pictures.append(blended(pair, np.rint(pair.picture[..., BASE] + residual[0]).astype(np.float32)))

    def ratio(self, other: BackendRun) -> float:
        """Return the median over the frames of the time as a share of another backend's time."""
        return float(np.median(np.divide(self.processor_ms, other.processor_ms)))


def opened(model: str, weights: Path, choice: BackendChoice, threads: int) -> BackendRun:
    """Load a model into a backend.

    Args:
        model: name of the model.
        choice: backend and precision.
        threads: threads of one inference.

    Raises:
        InvalidRequestError: this machine or the installed build cannot do that.
        ModelNotFoundError: the model was not exported in this precision.
    """
    backend = make_backend(device="cpu", backend=choice.backend, precision=choice.precision, num_threads=threads)
    file = read_models(weights, choice.precision)[model]
    started = time.process_time()
    backend.load(file)
    return BackendRun(choice, backend, file, time.process_time() - started)


def print_table(model: str, weights: Path, held_out: Sequence[Clip], num_frames: int) -> None:
    """Print one line for each backend, precision and number of threads.

    Args:
        model: name of the model.
        num_frames: frames of each clip, evenly spread.

    Raises:
        DubstageError: the model cannot be drawn with ONNX Runtime in float32 or int8.
    """
    read = training_named(model).held_out
    clips = [read(clip, num_frames) for clip in held_out]
    pairs = [pair for clip in clips for pair in clip.pairs]
    truth = [pair.target for pair in pairs]
    print(f"model {model}, processor {this_processor()}, default {default_choice('cpu')}")
    print("backend                threads  processor ms  ratio  load s  picture dB  truth dB")
    for threads in _THREADS:
        runs = {}
        for choice in BACKEND_CHOICES:
            try:
                runs[choice] = opened(model, weights, choice, threads)
            except DubstageError as error:
                print(f"{choice!s:22} {threads:7}  {error.message}")
        for index, pair in enumerate([pairs[0], *pairs]):
            begin = index % len(runs)
            for run in [*runs.values()][begin:] + [*runs.values()][:begin]:
                run.draw(pair)
                if not index:  # the first inference also prepares memory
                    run.processor_ms.clear()
                    run.pictures.clear()
        exact, plain = runs[BACKEND_CHOICES[0]], runs[PLAIN_CHOICE["cpu"]]
        for run in runs.values():
            times = f"{np.median(run.processor_ms):12.1f}  {run.ratio(plain):5.2f}  {run.load_s:6.2f}"
            picture, true = _mouth_db(clips, run.pictures, exact.pictures), _mouth_db(clips, run.pictures, truth)
            print(f"{run.choice!s:22} {threads:7}  {times}  {picture:10.1f}  {true:8.2f}", flush=True)


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=model_names(), required=True, help="model to measure")
    parser.add_argument("--data", type=Path, required=True, help="training set, made by dubstage trainset")
    parser.add_argument("--clip", action="append", required=True, metavar="NAME", help="name of a clip; may be repeated")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder of exported models. Default: %(default)s")
    parser.add_argument("--frames", type=int, default=30, help="frames of each clip, evenly spread. Default: %(default)s")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    print_table(given.model, given.weights, clips_named(given.data, given.clip), given.frames)
    return 0


def _mouth_db(clips: Sequence[HeldOut], drawn: Pictures, target: Pictures) -> float:
    points = [point for clip in clips for point in clip.landmarks]
    return float(np.mean([frame_quality(*frame).psnr_db for frame in zip(drawn, target, points, strict=True)]))


if __name__ == "__main__":
    sys.exit(main())
