"""A renderer of a few lines with a network of a few nodes, which these tests build and export themselves.

picture = window @ W + mean(speech features) + neural features @ V + reference + mean(actor's state)

`window` holds one grey value per frame of the window and pixel. Each term is there only if the toy takes its input.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from services.common.array_types import Array, Float32, UInt8
from services.common.methods import RENDERERS, RendererSpec, TextureInput
from services.render import renderers
from services.render.backends.model_files import ModelFile, read_models
from services.render.renderer import NetworkInputs, PersonalizeJob, Renderer, StreamSetup, Window
from services.render.types import PersonalizeProgress, Precision, RenderFrame

NAME: Final = "toy"
SPEECH: Final = (4, 6)
NEURAL_CHANNELS: Final = 5
OWN_REFERENCE: Final = 7
"""Level of the reference picture that stands in where a stream is opened without one."""
_TYPES: Final = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Inputs of the toy.

    Attributes:
        before: frames before.
        after: frames after.
        inputs: optional inputs, names of RendererSpec.inputs; not both `texture` and `neural_features`.
        state_size: length of the actor's state.
        multiple: side of the render box in units of 160 pixels.
        max_batch_size: largest batch of the network.
    """

    before: int = 0
    after: int = 0
    inputs: tuple[str, ...] = ()
    state_size: int = 0
    multiple: int = 1
    max_batch_size: int = 64

    @property
    def size(self) -> int:
        return 160 * self.multiple

    @property
    def window(self) -> int:
        return self.before + 1 + self.after

    @property
    def weights(self) -> Float32:
        """float32 [window, 3]; multiples of 1/8, so that sums of grey values are exact."""
        places = np.arange(self.window, dtype=np.float32)
        return np.stack([(places + 1.0) / 8.0, (self.window - places) / 8.0, np.full(self.window, 0.125)], 1).astype(np.float32)

    @property
    def spec(self) -> RendererSpec:
        neural = "neural_features" in self.inputs
        own = TextureInput.WARPED if "texture" in self.inputs else TextureInput.NONE
        return RendererSpec(
            name=NAME,
            frames_before=self.before,
            frames_after=self.after,
            texture=TextureInput.NEURAL if neural else own,
            speech="speech_features" in self.inputs,
            reference="reference" in self.inputs,
            needs_actor=neural or self.state_size > 0,
            needs_identity=neural,
        )

    def register(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Add the toy's row to the table, and a module to the packages of renderers."""
        package = ModuleType(f"{renderers.__name__}.{NAME}")
        renderer = Renderer(spec=self.spec, open=lambda setup: ToyRenderer(self, setup), personalize=personalize)
        monkeypatch.setattr(package, "RENDERER", renderer, raising=False)
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setitem(RENDERERS, NAME, self.spec)

    def write(self, folder: Path) -> ModelFile:
        """Build the network and write it with its export sheet, as an export does."""
        size, forms = self.size, self.forms()
        constants = [numpy_helper.from_array(self.weights, "W")]
        nodes = [helper.make_node("MatMul", ["window", "W"], ["sum0"])]
        terms = []
        if "speech_features" in self.inputs:
            constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis1"))
            nodes.append(helper.make_node("ReduceMean", ["speech_features"], ["speech"], axes=[1, 2], keepdims=1))
            nodes.append(helper.make_node("Unsqueeze", ["speech", "axis1"], ["term_speech"]))
            terms.append("term_speech")
        if "neural_features" in self.inputs:
            constants.append(numpy_helper.from_array(np.eye(NEURAL_CHANNELS, 3, dtype=np.float32), "V"))
            nodes.append(helper.make_node("MatMul", ["neural_features", "V"], ["term_neural"]))
            terms.append("term_neural")
        if "reference" in self.inputs:
            nodes.append(helper.make_node("Cast", ["reference"], ["term_reference"], to=TensorProto.FLOAT))
            terms.append("term_reference")
        if self.state_size:
            nodes.append(helper.make_node("ReduceMean", ["actor_state"], ["mean_state"], axes=[-1], keepdims=1))
            constants.append(numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "pixels"))
            nodes.append(helper.make_node("Reshape", ["mean_state", "pixels"], ["term_state"]))
            terms.append("term_state")
        for place, term in enumerate(terms):
            nodes.append(helper.make_node("Add", [f"sum{place}", term], [f"sum{place + 1}"]))
        nodes.append(helper.make_node("Identity", [f"sum{len(terms)}"], ["picture"]))
        nodes.append(helper.make_node("ReduceMax", ["picture"], ["brightest"], axes=[1, 2, 3], keepdims=1))
        outputs: dict[str, list[Any]] = {
            "picture": ["float32", ["batch", size, size, 3]],
            "brightest": ["float32", ["batch", 1, 1, 1]],
        }
        graph = helper.make_graph(
            nodes,
            NAME,
            _values(forms),
            _values(outputs),
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{NAME}.onnx"
        onnx.save(model, path)
        file = {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        facts = {
            "name": NAME,
            "files": {"float": file, "int8": file},
            "prior_sha256": "0" * 64,
            "max_batch_size": self.max_batch_size,
            "inputs": forms,
            "outputs": outputs,
            "state_size": self.state_size,
        }
        (folder / f"{NAME}.export.json").write_text(json.dumps(facts), encoding="utf-8")
        return read_models(folder, Precision.FLOAT32)[NAME]

    def forms(self) -> dict[str, list[Any]]:
        """The network's inputs as an export sheet lists them; the actor's input first."""
        size = self.size
        forms: dict[str, list[Any]] = {}
        if self.state_size:
            forms["actor_state"] = ["float32", ["batch", self.state_size]]
        forms["window"] = ["float32", ["batch", size, size, self.window]]
        if "speech_features" in self.inputs:
            forms["speech_features"] = ["float32", ["batch", *SPEECH]]
        if "neural_features" in self.inputs:
            forms["neural_features"] = ["float32", ["batch", size, size, NEURAL_CHANNELS]]
        if "reference" in self.inputs:
            forms["reference"] = ["uint8", ["batch", size, size, 3]]
        return forms

    def frames(self, indices: list[int]) -> list[RenderFrame]:
        """Frames with all inputs, each of another level; small whole numbers, so that all sums are exact."""
        size = self.size
        mask = np.zeros((size, size), np.uint8)
        mask[size // 4 : -size // 4, size // 4 : -size // 4] = 255
        frames = []
        for index in indices:
            rng = np.random.default_rng(index)
            frames.append(
                RenderFrame(
                    frame_index=index,
                    background=rng.integers(0, 40, (size, size, 3), np.uint8),
                    texture=rng.integers(0, 40, (size, size, 3), np.uint8) if "texture" in self.inputs else None,
                    mask=mask,
                    box_landmarks=np.zeros((59, 2), np.float32),
                    speech_features=np.full(SPEECH, index % 7, np.float32) if "speech_features" in self.inputs else None,
                    neural_features=rng.integers(0, 9, (size, size, NEURAL_CHANNELS)).astype(np.float32)
                    if "neural_features" in self.inputs
                    else None,
                )
            )
        return frames

    def expected(self, window: list[RenderFrame], now: RenderFrame, state: Float32, reference: UInt8 | None = None) -> UInt8:
        """The picture of a frame from the frames of its window, by NumPy."""
        made = np.stack([frame.background[..., 0] for frame in window], axis=-1).astype(np.float32) @ self.weights
        if now.speech_features is not None:
            made = made + now.speech_features.mean()
        if now.neural_features is not None:
            made = made + now.neural_features[..., :3]
        if "reference" in self.inputs:
            made = made + (OWN_REFERENCE if reference is None else reference)
        if self.state_size:
            made = made + state.mean()
        face = np.clip(np.rint(made), 0, 255).astype(np.uint8)
        return np.where(now.mask[..., None] > 0, face, now.background)


def _values(forms: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, _TYPES[form[0]], form[1]) for name, form in forms.items()]


class ToyRenderer:
    """See services.render.renderer.FrameRenderer. The window keeps a grey picture per frame."""

    def __init__(self, toy: Toy, setup: StreamSetup) -> None:
        self._toy = toy
        self.actor_inputs: dict[str, Array] = {}
        if toy.state_size:
            self.actor_inputs["actor_state"] = setup.state
        if "reference" in toy.inputs:
            own = np.full((toy.size, toy.size, 3), OWN_REFERENCE, np.uint8)
            self.actor_inputs["reference"] = own if setup.reference is None else setup.reference

    def prepare(self, frame: RenderFrame) -> UInt8:
        return frame.background[..., 0]

    def network_inputs(self, window: Window[UInt8]) -> NetworkInputs:
        frame = window.frame
        inputs: dict[str, Array] = {"window": np.stack(window.items, axis=-1).astype(np.float32)}
        for name in ("speech_features", "neural_features"):
            if name in self._toy.inputs:
                inputs[name] = getattr(frame, name)
        return NetworkInputs(inputs, frame.background)

    def draw(self, window: Window[UInt8], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        frame = window.frame
        assert outputs["brightest"] == outputs["picture"].max()
        face = np.clip(np.rint(outputs["picture"]), 0.0, 255.0).astype(np.uint8)
        return np.where(frame.mask[..., None] > 0, face, inputs.base)


def personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    """Two steps; the state's numbers are the number of frames of the bank."""
    for step in (1, 2):
        yield PersonalizeProgress(step, 2, 0.5, np.full(64, job.bank.num_frames, np.float32))
