"""The way back from an exported posteriorgram network to a module that can be trained further."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from services.audio.networks.ppg import PpgNetwork
from services.common.array_types import Float32
from services.common.errors import InvalidRequest

_GATES_OF_ONNX: Final = (0, 2, 3, 1)
"""ONNX keeps the gates of an LSTM in the order input, output, forget, cell; PyTorch: input, forget, cell, output."""


def load_exported(network: PpgNetwork, path: Path) -> None:
    """Load the weights of an exported network.

    Args:
        network: module of the same sizes.
        path: the exported file, ppg.onnx.

    Raises:
        InvalidRequest: the file is missing or damaged, or holds a network of other sizes.
    """
    try:
        graph = onnx.load(path).graph
        held = {tensor.name: np.array(numpy_helper.to_array(tensor), np.float32) for tensor in graph.initializer}
        linear = [held[node.input[1]] for node in graph.node if node.op_type == "MatMul"]
        state = {
            "feature_scale": held["network.feature_scale"],
            "project.weight": linear[0].T,
            "project.bias": held["network.project.bias"],
            "classify.weight": linear[1].T,
            "classify.bias": held["network.classify.bias"],
        }
        for layer, node in enumerate(node for node in graph.node if node.op_type == "LSTM"):
            weights, recurrent, biases = (held[name] for name in node.input[1:4])
            for direction, ending in enumerate(("", "_reverse")):
                own, fed_back = np.split(biases[direction], 2)
                parts = {"weight_ih": weights[direction], "weight_hh": recurrent[direction], "bias_ih": own, "bias_hh": fed_back}
                state |= {f"recurrent.{name}_l{layer}{ending}": _in_torch_order(values) for name, values in parts.items()}
        network.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.items()})
    except (OSError, ValueError, IndexError, KeyError, RuntimeError) as problem:
        first = str(problem).splitlines()[0]
        raise InvalidRequest(
            f"{path} cannot be trained further: {first}; set fine_tune = false, or the sizes of this network", field="config"
        ) from problem


def _in_torch_order(values: Float32) -> Float32:
    gates = np.split(values, 4)
    return np.concatenate([gates[place] for place in _GATES_OF_ONNX])
