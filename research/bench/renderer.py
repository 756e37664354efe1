"""The render stage and the fine detail alone: `python -m research.bench.renderer`.

The network of `ugc` on every backend, every model with its features as a dub uses them, and the fine detail by the width of the
face. The pictures are noise: the work does not depend on what a picture shows. One thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from gateway.compositing.detail import box_with_detail
from gateway.compositing.jaw import jaw_shift, warp_footage
from research.bench.runs import Stopwatch, best_cpu_ms, rows_of, table
from research.render.models import load_models
from services.common.array_types import Array
from services.common.errors import DubstageError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import BOX_SIZE, HeadPose, head_template, head_to_box
from services.common.face.landmarks import JAW, MOUTH_AREA, NUM_MOUTH_AREA
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.face.mouth_detail import warped_detail
from services.common.face.mouth_inside import InsideMap
from services.common.face.native_pictures import MAX_SCALE, encoded, packed
from services.common.stderr import log_lines_on_stderr
from services.render.backends.base import BACKEND_CHOICES, Backend, default_choice
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, WEIGHTS_FOLDER, ModelFile, read_models
from services.render.renderer import FrameWindow, StreamSetup, Window
from services.render.renderers.registry import renderer_named
from services.render.streams import blank_frame, default_state, make_backend, open_stream
from services.render.types import RenderFrame

_RUNS: Final = 40
_NOISE: Final = 0.01
"""Standard deviation of the numbers of a state: about what personalisation gives."""
_JAW_PX: Final = np.array([0.0, 6.0], np.float32)
"""Distance from the target jaw down to the filmed jaw, box pixels."""

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """One row: the time of the network alone, one frame per run on one thread.

    Attributes:
        backend: name of the runtime.
        precision: number format of the arithmetic.
        ms_per_frame: wall time per frame, milliseconds.
        cpu_ms_per_frame: processor time per frame, milliseconds.
        default: whether a dub uses this backend unless settings name another.
    """

    backend: str
    precision: str
    ms_per_frame: float
    cpu_ms_per_frame: float
    default: bool


@dataclass(frozen=True, slots=True)
class ModelTime:
    """One row: the processor time of a model on the default backend, one frame per call on one thread.

    Attributes:
        model: name of the model.
        network_ms: time of the network alone per frame, milliseconds.
        frame_ms: time per frame with everything before and after the network, milliseconds: masks, heatmaps, key pictures, windows,
            colours.
    """

    model: str
    network_ms: float
    frame_ms: float


@dataclass(frozen=True, slots=True)
class DetailTime:
    """One row: milliseconds of processor time per frame, for a face of `scale` footage pixels per box pixel.

    Attributes:
        scale: native pixels per box pixel, 1 to 4.
        warp_ms: decoding and warping of the bank's luma, in the texture stage.
        box_ms: enlarging of the rendered box, and its blend with the detail, in the gateway.
        jaw_ms: finding the jaw's shift and moving a render box; the same for every scale.
    """

    scale: int
    warp_ms: float
    box_ms: float
    jaw_ms: float


class _Watched:
    """Backend that adds up the processor time of its inferences."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.watch = Stopwatch()

    def infer(self, model: str, inputs: dict[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.float32]]:
        """Compute as the backend does."""
        with self.watch:
            return self._backend.infer(model, inputs)


def measure_models(runs: int = _RUNS) -> tuple[ModelTime, ...]:
    """Measure every installed model on consecutive frames of noise with a mask over the lower face."""
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    rows: list[ModelTime] = []
    for name, model in sorted(load_models(WEIGHTS_FOLDER, backend).files.items()):
        watched, blank = _Watched(backend), frame_of_noise(model, np.random.default_rng(0))
        stream = open_stream(watched, model, default_state(model), blank.texture)  # type: ignore[arg-type]  # streams call infer only
        # The first frame is answered when its frames after have come. From then on, each frame that comes answers one.
        before = 1 + renderer_named(name).spec.frames_after
        frames = [replace(blank, frame_index=index) for index in range(before + runs)]
        stream.render(frames[:before])
        watched.watch, whole = Stopwatch(), Stopwatch()
        with whole:
            for frame in frames[before:]:
                stream.render([frame])
        rows.append(ModelTime(name, 1000.0 * watched.watch.cpu_s / runs, 1000.0 * whole.cpu_s / runs))
    return tuple(rows)


def frame_of_noise(model: ModelFile, generator: np.random.Generator) -> RenderFrame:
    """Return a frame of noise with a mask over the lower face and lips that are an ellipse."""
    side = model.box_size
    background, texture = generator.integers(1, 256, (2, side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[side * 9 // 40 : side * 9 // 10, side * 3 // 20 : side * 17 // 20] = 255
    angles = np.linspace(0.0, 2.0 * np.pi, NUM_MOUTH_AREA, endpoint=False)
    lips = np.stack([0.5 + 0.22 * np.cos(angles), 0.4 + 0.1 * np.sin(angles)], 1).astype(np.float32) * side
    blank = blank_frame(model)
    frame = replace(blank, background=background, texture=texture, mask=mask, box_landmarks=lips)
    if blank.neural_features is not None:
        frame = replace(frame, neural_features=generator.random(blank.neural_features.shape, np.float32))
    return frame


def batch_of(model: ModelFile, frames: Sequence[Inputs]) -> dict[str, Array]:
    """Return the network's inputs for frames of any actors.

    Args:
        model: the network.
        frames: for each frame its inputs and its actor's, without the batch axis.
    """
    return {form.name: np.stack([frame[form.name] for frame in frames]) for form in model.inputs}


def frames_of(model: ModelFile, seed: int, count: int) -> list[Inputs]:
    """Return what the network is shown of consecutive frames of one actor of noise, who is another one for each seed."""
    renderer, generator = renderer_named(model.name), np.random.default_rng(seed)
    state = generator.normal(0.0, _NOISE, model.state_size).astype(np.float32)
    frame = frame_of_noise(model, generator)
    frame_renderer = renderer.open(StreamSetup(model=model, state=state, reference=frame.texture))
    window: FrameWindow[object] = FrameWindow(renderer.spec.frames_before, renderer.spec.frames_after)
    windows: list[Window[object]] = []
    for index in range(count):
        one = replace(frame, frame_index=index)
        windows += window.push(one, frame_renderer.prepare(one))
    return [{**frame_renderer.actor_inputs, **frame_renderer.network_inputs(each).inputs} for each in (*windows, *window.finish())]


def measure_renderer() -> tuple[NetworkTime, ...]:
    """Measure the network of `ugc` on all backends that this machine can run."""
    rows: list[NetworkTime] = []
    for choice in BACKEND_CHOICES:
        try:
            backend = make_backend(device="cpu", backend=choice.backend, precision=choice.precision, num_threads=1)
            model = read_models(WEIGHTS_FOLDER, choice.precision)["ugc"]
            backend.load(model)
        except DubstageError:
            continue  # this machine cannot run the backend
        shape = model.input_shape(INPUT_PICTURES)
        assert shape is not None
        picture = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
        inputs: dict[str, npt.NDArray[np.generic]] = {INPUT_PICTURES: picture, INPUT_STATE: default_state(model)[None]}
        backend.infer(model.name, inputs)
        with Stopwatch() as watch:
            for _ in range(_RUNS):
                backend.infer(model.name, inputs)
        wall, cpu = (1000.0 * seconds / _RUNS for seconds in (watch.wall_s, watch.cpu_s))
        rows.append(NetworkTime(choice.backend, str(choice.precision), wall, cpu, choice == default_choice("cpu")))
    return tuple(rows)


def measure_detail(runs: int = _RUNS) -> tuple[DetailTime, ...]:
    """Return the times of every scale, the best of `runs`; OpenCV has one thread meanwhile."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        jaw_ms = _jaw_ms(runs)
        return tuple(_detail_time(scale, jaw_ms, runs) for scale in range(1, MAX_SCALE + 1))
    finally:
        cv2.setNumThreads(threads)


def _detail_time(scale: int, jaw_ms: float, runs: int) -> DetailTime:
    random, side = np.random.default_rng(scale), scale * BOX_SIZE
    bank, box = _bank(scale), random.integers(0, 256, (BOX_SIZE, BOX_SIZE, 3)).astype(np.uint8)
    unmoved = np.stack(np.meshgrid(np.arange(BOX_SIZE), np.arange(BOX_SIZE)), axis=-1).astype(np.float32)
    inside = InsideMap(unmoved, np.zeros((BOX_SIZE, BOX_SIZE), np.float32))
    own, mask = random.uniform(0, 255, (side, side)).astype(np.float32), np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    detail = warped_detail(bank, 0, inside, scale)
    warp_ms = best_cpu_ms(lambda: warped_detail(bank, 0, inside, scale), runs)
    return DetailTime(scale, warp_ms, best_cpu_ms(lambda: box_with_detail(box, detail, mask, mask, own), runs), jaw_ms)


def _jaw_ms(runs: int) -> float:
    target = head_to_box(head_template()[list(MOUTH_AREA)], HeadPose(1.0, np.eye(3), np.zeros(3)))
    box, mask = np.zeros((BOX_SIZE, BOX_SIZE, 3), np.uint8), np.full((BOX_SIZE, BOX_SIZE), 255, np.uint8)
    return best_cpu_ms(lambda: warp_footage(box, jaw_shift(target + _JAW_PX, target, mask)), runs)


def _bank(scale: int) -> MouthBank:
    """Return a bank of one frame, with a native picture from scale 2 on."""
    random = np.random.default_rng(0)
    lengths = (NUM_MOUTH_AREA, NUM_MOUTH_AREA, len(JAW), len(ANCHORS))
    native = random.integers(0, 256, (scale * BOX_SIZE, scale * BOX_SIZE)).astype(np.uint8)
    return make_bank(
        random.integers(0, 256, (1, BOX_SIZE, BOX_SIZE, 3)).astype(np.uint8),
        np.zeros((1, NUM_MOUTH_AREA, 3), np.float32),
        np.eye(3)[None],
        np.arange(1),
        ActorGeometry(*(np.zeros((length, 3), np.float32) for length in lengths)),
        native=packed([encoded(native)]) if scale > 1 else None,
    )


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(prog="python -m research.bench.renderer", description=__doc__).parse_args()
    for rows in (measure_renderer(), measure_models(), measure_detail()):
        print(table(rows_of(rows)), end="\n\n")


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        main()
