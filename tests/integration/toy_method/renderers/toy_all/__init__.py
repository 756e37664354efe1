"""A renderer that takes every optional input but a texture: neural texture, speech and reference. A toy of a few nodes, too.

picture = background + neural features [.., :3] * colour * sum of speech features / rows + reference - 128
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.common.array_types import Array, UInt8
from services.common.face.mouth_bank import SPEECH_SHAPE
from services.common.face.neural_texture import NUM_CHANNELS, TEXTURE_SHAPE
from services.common.methods import RENDERERS
from services.render.backends.model_files import INPUT_STATE, OUTPUT_RESIDUAL
from services.render.renderer import NetworkInputs, PersonalizeJob, Renderer, StreamSetup, Window, with_residual
from services.render.types import PersonalizeProgress, RenderFrame

NAME: Final = "toy_all"
_OWN_REFERENCE: Final = 128
"""Level of the reference picture of every actor."""


class AllInputsRenderer:
    """See services.render.renderer.FrameRenderer. The window keeps nothing of a frame."""

    def __init__(self, setup: StreamSetup) -> None:
        own = np.full((160, 160, 3), _OWN_REFERENCE, np.uint8)
        self.actor_inputs: Final[Mapping[str, Array]] = {
            INPUT_STATE: setup.state,
            "reference": own if setup.reference is None else setup.reference,
        }

    def prepare(self, frame: RenderFrame) -> int:
        """See FrameRenderer.prepare."""
        return frame.frame_index

    def network_inputs(self, window: Window[int]) -> NetworkInputs:
        """See FrameRenderer.network_inputs."""
        frame = window.frame
        assert frame.neural_features is not None
        assert frame.speech_features is not None
        return NetworkInputs({"features": frame.neural_features, "speech": frame.speech_features}, frame.background)

    def draw(self, window: Window[int], inputs: NetworkInputs, outputs: Mapping[str, Array]) -> UInt8:
        """See FrameRenderer.draw."""
        return with_residual(window.frame, inputs.base, outputs[OUTPUT_RESIDUAL])


def _personalize(job: PersonalizeJob) -> Iterator[PersonalizeProgress]:
    """A texture of blue stripes. How strong the blue is depends on the speech of the bank."""
    assert job.bank.speech is not None
    assert job.bank.expression is not None
    assert job.drawing is not None
    assert job.bank.expression.std(axis=0).max() > 0, "the expression moves"
    texture = np.zeros(TEXTURE_SHAPE, np.uint8)
    texture[:, np.arange(TEXTURE_SHAPE[1]) // 16 % 2 == 0, 2] = 255
    # Rows of a posteriorgram sum to one where there is speech or silence, and to zero outside the sound.
    heard = float(job.bank.speech.sum(axis=2).mean())
    yield PersonalizeProgress(1, 1, 0.0, np.full(3, 60.0 * heard, np.float32), texture)


def write_network(folder: Path) -> Path:
    """Write the exported network and its sheet into a folder of weights; return the path of the ONNX file."""
    inputs = {
        "features": ["float32", ["batch", 160, 160, NUM_CHANNELS]],
        "speech": ["float32", ["batch", *SPEECH_SHAPE]],
        "reference": ["uint8", ["batch", 160, 160, 3]],
        INPUT_STATE: ["float32", ["batch", 3]],
    }
    outputs = {OUTPUT_RESIDUAL: ["float32", ["batch", 160, 160, 3]]}
    constants = {
        "RGB": np.eye(NUM_CHANNELS, 3, dtype=np.float32),
        "rows": np.array(SPEECH_SHAPE[0], np.float32),
        "grey": np.array(_OWN_REFERENCE, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["features", "RGB"], ["shown"]),
        helper.make_node("Unsqueeze", [INPUT_STATE], ["colour"], axes=[1, 2]),
        helper.make_node("Mul", ["shown", "colour"], ["coloured"]),
        helper.make_node("ReduceSum", ["speech"], ["sum"], axes=[1, 2], keepdims=1),
        helper.make_node("Div", ["sum", "rows"], ["heard"]),
        helper.make_node("Unsqueeze", ["heard"], ["heard_everywhere"], axes=[3]),
        helper.make_node("Mul", ["coloured", "heard_everywhere"], ["face"]),
        helper.make_node("Cast", ["reference"], ["level"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["level", "grey"], ["light"]),
        helper.make_node("Add", ["face", "light"], [OUTPUT_RESIDUAL]),
    ]
    types = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    taken, given = (
        [helper.make_tensor_value_info(name, types[str(kind)], shape) for name, (kind, shape) in forms.items()]
        for forms in (inputs, outputs)
    )
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, NAME, taken, given, initializer=tensors)
    path = folder / f"{NAME}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), path)
    file = {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    sheet = {
        "name": NAME,
        "files": {"float": file, "int8": file},
        "prior_sha256": file["sha256"],
        "max_batch_size": 64,
        "inputs": inputs,
        "outputs": outputs,
        "state_size": 3,
    }
    path.with_suffix(".export.json").write_text(json.dumps(sheet), encoding="utf-8")
    return path


RENDERER: Final = Renderer(spec=RENDERERS[NAME], open=AllInputsRenderer, personalize=_personalize)
