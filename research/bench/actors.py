"""Frames of many actors in one batch on one loaded model, against frames of one actor: `python -m research.bench.actors`.

A cluster with many tenants makes such batches. Each actor has an own state, own pictures and, where the model takes a neural
texture, own features of one. All of these are inputs: the loaded model is the same for all actors. The processor time of the
network is measured, because drawing the inputs and the picture takes as long for one actor as for many. A model that takes an array
of the actor once for a whole batch cannot batch actors, and is left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from services.common.array_types import Array
from services.render.backends.base import Backend
from services.render.backends.model_files import WEIGHTS_FOLDER, ModelFile
from services.render.renderer import FrameWindow, StreamSetup, Window
from services.render.renderers.registry import renderer_named
from services.render.streams import blank_frame, load_models, make_backend

ACTORS: Final = 16
_RUNS: Final = 4
_NOISE: Final = 0.01
"""Standard deviation of the numbers of a state: about what personalisation gives."""

Inputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ActorTimes:
    """One row: batches of as many frames, of one actor and of as many actors.

    Attributes:
        model: name of the model.
        actors: frames a batch.
        one_fps: frames a second of one processor where all frames of a batch are of one actor.
        many_fps: frames a second of one processor where each frame of a batch is of another actor.
    """

    model: str
    actors: int
    one_fps: float
    many_fps: float

    @property
    def share(self) -> float:
        """Throughput with many actors, divided by that with one."""
        return self.many_fps / self.one_fps if self.one_fps > 0.0 else 0.0


def measure_actors(actors: int = ACTORS, runs: int = _RUNS) -> tuple[ActorTimes, ...]:
    """Measure every installed model that can batch actors, on one thread of the default backend.

    Args:
        actors: frames a batch.
        runs: batches of each kind; the fastest one counts.
    """
    backend = make_backend(device="cpu", backend=None, precision=None, num_threads=1)
    models = load_models(WEIGHTS_FOLDER, backend)
    rows: list[ActorTimes] = []
    for name, model in sorted(models.files.items()):
        if not all(form.batched for form in model.inputs):
            continue
        one = batch_of(model, frames_of(model, seed=0, count=actors))
        many = batch_of(model, [frames_of(model, seed, count=1)[0] for seed in range(actors)])
        # In turns, so that a change of the machine's load meets both.
        times = [(_seconds(backend, name, one), _seconds(backend, name, many)) for _ in range(runs + 1)][1:]
        rows.append(ActorTimes(name, actors, *(actors / min(column) for column in zip(*times, strict=True))))
    return tuple(rows)


def batch_of(model: ModelFile, frames: Sequence[Inputs]) -> dict[str, Array]:
    """Return the network's inputs for frames of any actors. An input without a batch axis is that of the first frame's actor.

    Args:
        model: the network.
        frames: for each frame its inputs and its actor's, without a batch axis.
    """
    return {
        form.name: np.stack([frame[form.name] for frame in frames]) if form.batched else frames[0][form.name]
        for form in model.inputs
    }


def frames_of(model: ModelFile, seed: int, count: int) -> list[Inputs]:
    """Return what the network is shown of consecutive frames of one actor of noise, who is another one for each seed."""
    renderer, side, generator = renderer_named(model.name), model.box_size, np.random.default_rng(seed)
    state = generator.normal(0.0, _NOISE, model.state_size).astype(np.float32)
    pictures = generator.integers(1, 256, (2, side, side, 3), dtype=np.uint8)
    frame_renderer = renderer.open(StreamSetup(model=model, state=state, reference=pictures[1]))
    window: FrameWindow[object] = FrameWindow(renderer.spec.frames_before, renderer.spec.frames_after)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : -side // 8, side // 6 : -side // 6] = 255
    angles = np.linspace(0.0, 2.0 * np.pi, 59, endpoint=False)
    lips = np.stack([0.5 + 0.22 * np.cos(angles), 0.4 + 0.1 * np.sin(angles)], 1).astype(np.float32) * side
    blank = blank_frame(model)
    frame = replace(blank, background=pictures[0], texture=pictures[1], mask=mask, box_landmarks=lips)
    if blank.neural_features is not None:
        frame = replace(frame, neural_features=generator.random(blank.neural_features.shape, np.float32))
    windows: list[Window[object]] = []
    for index in range(count):
        one = replace(frame, frame_index=index)
        windows += window.push(one, frame_renderer.prepare(one))
    return [{**frame_renderer.actor_inputs, **frame_renderer.network_inputs(each).inputs} for each in (*windows, *window.finish())]


def _seconds(backend: Backend, name: str, inputs: dict[str, Array]) -> float:
    begin = time.process_time()
    backend.infer(name, inputs)
    return time.process_time() - begin


def lines_of_actors(rows: tuple[ActorTimes, ...]) -> list[str]:
    """Return one line per model for the terminal."""
    return [
        f"renderer {row.model}, batches of {row.actors}: {row.one_fps:.1f} frames a second of one actor, "
        f"{row.many_fps:.1f} of {row.actors} actors ({100.0 * row.share:.0f} %)"
        for row in rows
    ]


if __name__ == "__main__":
    print("\n".join(lines_of_actors(measure_actors())))
