"""Streams through renderers of a few lines: windows, named inputs and outputs, the actor's inputs, and larger boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.render.models import load_models
from services.common.array_types import Array, Float32
from services.common.errors import ContractBrokenError, InvalidRequestError, ModelNotFoundError
from services.render.backends.base import Arrays, Backend
from services.render.backends.model_files import ModelFile
from services.render.backends.onnxruntime import OnnxRuntimeBackend
from services.render.backends.openvino import OpenVinoBackend
from services.render.streams import RenderModels, default_state, infer_frames, open_stream
from services.render.types import Precision
from tests.refusals import raised
from tests.unit.render.rendering import render
from tests.unit.render.toy import NAME, Toy

Load = Callable[[Toy], ModelFile]
ALL = ("speech_features", "neural_features", "reference")


class Watched:
    """A backend that notes the shapes of what it computes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.shapes: list[dict[str, tuple[int, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def infer(self, model: str, inputs: Arrays) -> dict[str, Array]:
        self.shapes.append({name: values.shape for name, values in inputs.items()})
        return self._backend.infer(model, inputs)


@pytest.fixture(params=["onnxruntime", "openvino"])
def backend(request: pytest.FixtureRequest) -> Iterator[Watched]:
    if request.param == "openvino":
        yield Watched(OpenVinoBackend(precision=Precision.FLOAT32, num_threads=1))
    else:
        yield Watched(OnnxRuntimeBackend(device="cpu", precision=Precision.FLOAT32, num_threads=1))


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Watched) -> Load:
    """Register a toy, write its network, and load it."""

    def load(toy: Toy) -> ModelFile:
        toy.register(monkeypatch)
        toy.write(tmp_path)
        return load_models(tmp_path, backend).files[NAME]

    return load


def test_a_picture_depends_on_frames_before_and_after(loaded: Load, backend: Watched) -> None:
    toy = Toy(before=2, after=1)
    model = loaded(toy)
    frames = toy.frames([0, 1, 2, 3, 7, 8])
    state = default_state(model)
    made = render(backend, model, frames, state)
    assert [one.frame_index for one in made] == [0, 1, 2, 3, 7, 8]
    windows = [(0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3), (4, 4, 4, 5), (4, 4, 5, 5)]
    for one, frame, window in zip(made, frames, windows, strict=True):
        assert np.array_equal(one.box, toy.expected([frames[place] for place in window], frame, state))


def test_neither_chunks_nor_context_change_a_byte(loaded: Load, backend: Watched) -> None:
    toy = Toy(before=2, after=2)
    model = loaded(toy)
    frames = toy.frames(list(range(10)))
    whole = render(backend, model, frames, default_state(model))
    stream = open_stream(backend, model, default_state(model))
    answered = [[one.frame_index for one in stream.render(frames[begin : begin + 3])] for begin in range(0, 10, 3)]
    assert answered == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert [one.frame_index for one in stream.finish()] == [8, 9]
    part = [replace(frame, context_only=frame.frame_index not in (4, 5)) for frame in frames[2:8]]
    cut = render(backend, model, part, default_state(model))
    assert [(one.frame_index, one.box.tobytes()) for one in cut] == [(one.frame_index, one.box.tobytes()) for one in whole[4:6]]
    alone = render(backend, model, frames[4:6], default_state(model))
    assert alone[0].box.tobytes() != whole[4].box.tobytes()


def test_inputs_by_name_actors_repeated(loaded: Load, backend: Watched) -> None:
    """A network gets its inputs by name, and the inputs of an actor for each frame."""
    toy = Toy(inputs=ALL, state_size=50_000)
    model = loaded(toy)
    frames = toy.frames([3, 4, 5])
    state = np.full(50_000, 9.0, np.float32)
    reference = np.full((160, 160, 3), 11, np.uint8)
    backend.shapes.clear()
    made = render(backend, model, frames, state, reference)
    for one, frame in zip(made, frames, strict=True):
        assert np.array_equal(one.box, toy.expected([frame], frame, state, reference))
    assert backend.shapes == [
        {
            "actor_state": (3, 50_000),
            "window": (3, 160, 160, 1),
            "speech_features": (3, 4, 6),
            "neural_features": (3, 160, 160, 5),
            "reference": (3, 160, 160, 3),
        }
    ]


@pytest.mark.parametrize("multiple", [1, 2, 3])
def test_the_sheet_says_how_large_the_box_is(loaded: Load, backend: Watched, multiple: int) -> None:
    toy = Toy(before=1, multiple=multiple)
    model = loaded(toy)
    assert model.box_multiple == multiple
    frames, state = toy.frames([0, 1]), default_state(model)
    made = render(backend, model, frames, state)
    assert made[1].box.shape == (160 * multiple, 160 * multiple, 3)
    assert np.array_equal(made[1].box, toy.expected(frames, frames[1], state))


@pytest.mark.parametrize("name", ["texture", "speech_features", "neural_features"])
def test_a_missing_input_of_a_frame_is_named(loaded: Load, backend: Watched, name: str) -> None:
    toy = Toy(inputs=(name,))
    model = loaded(toy)
    (frame,) = toy.frames([0])
    with raised(InvalidRequestError, match=rf"frame\.{name} is missing: model 'toy' needs it", field=f"frame.{name}"):
        render(backend, model, [replace(frame, **{name: None})], default_state(model))
    # A renderer without a window never looks at frames that are context only.
    assert render(backend, model, [replace(frame, **{name: None}, context_only=True)], default_state(model)) == []


def test_without_a_reference_the_renderer_brings_its_own(loaded: Load, backend: Watched) -> None:
    toy = Toy(inputs=("reference",))
    model = loaded(toy)
    (frame,) = toy.frames([0])
    given = np.full((160, 160, 3), 30, np.uint8)
    (own,) = render(backend, model, [frame], default_state(model))
    (other,) = render(backend, model, [frame], default_state(model), given)
    assert np.array_equal(own.box, toy.expected([frame], frame, default_state(model)))
    assert np.array_equal(other.box, toy.expected([frame], frame, default_state(model), given))
    assert not np.array_equal(own.box, other.box)


def test_renderer_and_network_inputs_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Watched) -> None:
    """A renderer and its network must agree on inputs."""
    toy = Toy()
    toy.register(monkeypatch)
    model = toy.write(tmp_path)
    backend.load(model)
    window: Float32 = np.zeros((160, 160, 1), np.float32)
    for frame, actor in (({"picture": window}, {}), ({}, {"window": window}), ({"window": window, "more": window}, {})):
        with pytest.raises(ContractBrokenError, match="renderer 'toy' gives"):
            infer_frames(backend, model, [frame], {**actor, "other": window} if "window" in actor else actor)


def test_model_without_renderer_refused(tmp_path: Path, backend: Watched) -> None:
    """A model that is no renderers is refused when it is loaded."""
    Toy().write(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no renderer 'toy': there are everybody, everyone, headpose, hetero, ugc"):
        load_models(tmp_path, backend)


def test_model_loads_at_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Watched) -> None:
    """A model is loaded once, by the thread that needs the model first."""
    toy = Toy()
    toy.register(monkeypatch)
    toy.write(tmp_path)
    models = RenderModels(tmp_path, backend)
    assert [info.spec.name for info in models.info()] == [NAME]
    assert not backend.shapes
    models.load("other")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(models.load, [NAME] * 8))
    assert len(backend.shapes) == 1, "one black frame was drawn"
    assert not models.unavailable
