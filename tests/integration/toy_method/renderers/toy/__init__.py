"""The toy's renderer: the lips get the actor's colour, the stronger the further the mouth is open.

picture = background + lips * colour        lips: the opening in pixels between the lips' landmarks, 0 elsewhere
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.common.array_types import Array, Float32, UInt8
from services.common.face.landmarks import NUM_LIPS, mouth_opening
from services.common.methods import RENDERERS
from services.render.backends.model_files import INPUT_STATE, OUTPUT_RESIDUAL
from services.render.renderer import NetworkInputs, PersonalizeJob, Renderer, StreamSetup, Window, with_residual
from services.render.types import PersonalizeProgress, RenderFrame

_INPUT_LIPS: Final = "lips"
_BLUE: Final[Float32] = np.array([-12.0, -12.0, 12.0], np.float32)
"""Grey levels of red, green and blue per pixel of opening: what the personalisation finds for every person."""


class ToyRenderer:
    """See services.render.renderer.FrameRenderer. The window keeps the network's picture of the lips, float32 [H, W, 1]."""

    def __init__(self, setup: StreamSetup) -> None:
        self.actor_inputs: Final[Mapping[str, Array]] = {INPUT_STATE: setup.state}

    def prepare(self, frame: RenderFrame) -> Float32:
        """See FrameRenderer.prepare."""
        lips = np.zeros((*frame.mask.shape, 1), np.float32)
        (left, top), (right, bottom) = (
            edge(frame.box_landmarks[:NUM_LIPS], axis=0).clip(0, len(lips)).astype(int) for edge in (np.min, np.max)
        )
        lips[top:bottom, left:right] = mouth_opening(frame.box_landmarks)
        return lips

    def network_inputs(self, window: Window[Float32]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        return NetworkInputs({_INPUT_LIPS: window.now}, window.frame.background)

    def draw(self, window: Window[Float32], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        return with_residual(window.frame, inputs.base, outputs[OUTPUT_RESIDUAL])


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    yield PersonalizeProgress(1, 1, 0.0, _BLUE)


def write_network(folder: Path) -> Path:
    """Write the exported network and its sheet into a folder of weights; return the path of the ONNX file."""
    inputs = {_INPUT_LIPS: ["float32", ["batch", 160, 160, 1]], INPUT_STATE: ["float32", ["batch", 3]]}
    outputs = {OUTPUT_RESIDUAL: ["float32", ["batch", 160, 160, 3]]}
    pixels = numpy_helper.from_array(np.array([-1, 1, 1, 3], np.int64), "pixels")
    nodes = [
        helper.make_node("Reshape", [INPUT_STATE, "pixels"], ["colour"]),
        helper.make_node("Mul", [_INPUT_LIPS, "colour"], [OUTPUT_RESIDUAL]),
    ]
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in forms.items()]
        for forms in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "toy", *values, initializer=[pixels])
    path = folder / "toy.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    file = {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    sheet = {
        "name": "toy",
        "files": {"float": file, "int8": file},
        "prior_sha256": file["sha256"],
        "max_batch_size": 64,
        "inputs": inputs,
        "outputs": outputs,
        "state_size": len(_BLUE),
    }
    path.with_suffix(".export.json").write_text(json.dumps(sheet), encoding="utf-8")
    return path


RENDERER: Final = Renderer(spec=RENDERERS["toy"], open=ToyRenderer, personalize=_personalize)
