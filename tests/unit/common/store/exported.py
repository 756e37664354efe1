"""A training run without a training, and the export of its network, which returns its input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from research.training.network_files import write_exported_network


@dataclass(frozen=True)
class Facts:
    """Description of an export."""

    tolerance: float = 1e-4


def identity_network(name: str = "same") -> bytes:
    """Return an ONNX file that returns its input. Files with other names have other bytes."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], name, [value], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def run_folder(folder: Path) -> Path:
    """Create the folder of a complete run and return it."""
    folder.mkdir()
    (folder / "config.json").write_text('{"network": "same", "config": {"width": 3}}')
    (folder / "CARD.md").write_text("# same")
    (folder / "same.safetensors").write_bytes(b"weights")
    return folder


def exported_network(folder: Path, run: Path) -> Path:
    """Export the network of a run into a folder, and return the ONNX file."""
    path = folder / "same.onnx"
    write_exported_network(path, identity_network(), run=run, weights=run / "same.safetensors", spec=Facts(), parity=Facts(0.0))
    return path
