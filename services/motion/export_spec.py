"""What the exports of all predictors share: the description of a network, ONNX files and their admission, and delivery of files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from services.common.array_types import Array, Float32
from services.common.store.tensor_bytes import encode_arrays

_OPSET: Final = 17
_LENGTH: Final = 64
"""Length of dynamic axes in examples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """Description of an exported network.

    Attributes:
        name: name of the ONNX file without its ending.
        inputs: shape of each input by name. None is a dynamic axis.
        outputs: names of the outputs.
        dynamic_outputs: names of outputs whose second axis is dynamic.
        tolerance: largest absolute difference of a number between PyTorch and ONNX Runtime.
        max_bytes: largest size of the ONNX file.
        parity_runs: number of random inputs, or of steps of a recurrent network, that are compared.
        seed: seed of the random inputs.
    """

    name: str
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    dynamic_outputs: tuple[str, ...] = ()
    tolerance: float = 1e-4
    max_bytes: int
    parity_runs: int
    seed: int = 7

    def example(self, rng: np.random.Generator) -> dict[str, Float32]:
        """Return random inputs of a normal distribution. Dynamic axes get the length 64."""
        return {
            name: rng.standard_normal(tuple(_LENGTH if length is None else length for length in shape)).astype(np.float32)
            for name, shape in self.inputs.items()
        }

    def examples(self) -> Iterator[dict[str, Float32]]:
        """Yield the random inputs of a parity check; the seed decides them."""
        rng = np.random.default_rng(self.seed)
        for _ in range(self.parity_runs):
            yield self.example(rng)


def write_onnx(network: nn.Module, folder: Path, spec: ExportSpec) -> Path:
    """Write folder/<name>.onnx and return its path."""
    path = folder / f"{spec.name}.onnx"
    shapes = spec.inputs.values()
    example = tuple(torch.zeros(tuple(_LENGTH if length is None else length for length in shape)) for shape in shapes)
    dynamic = {name: {axis: "frames" for axis, n in enumerate(shape) if n is None} for name, shape in spec.inputs.items()}
    dynamic |= {name: {1: "frames"} for name in spec.dynamic_outputs}
    torch.onnx.export(
        network.eval(),
        example,
        str(path),
        input_names=list(spec.inputs),
        output_names=list(spec.outputs),
        dynamic_axes=dynamic,
        opset_version=_OPSET,
        dynamo=False,  # one file, no external data
    )
    onnx.checker.check_model(str(path))
    return path


def measure_parity(network: nn.Module, path: Path, spec: ExportSpec, inputs: Iterator[dict[str, Float32]]) -> float:
    """Return the largest difference between PyTorch and ONNX Runtime.

    Args:
        network: the source.
        path: the ONNX file.
        spec: description of the network.
        inputs: inputs to compare on.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for each in inputs:
        with torch.inference_mode():
            answer = network(*(torch.from_numpy(value) for value in each.values()))
        expected: tuple[Tensor, ...] = answer if isinstance(answer, tuple) else (answer,)
        for got, want in zip(session.run(list(spec.outputs), each), expected, strict=True):
            largest = max(largest, float(np.abs(got - want.numpy()).max()))
    return largest


def admit(path: Path, difference: float, spec: ExportSpec) -> None:
    """Check an exported network.

    Raises:
        RuntimeError: the network differs from its source by more than the tolerance, or the file is too large.
    """
    size = path.stat().st_size
    if difference > spec.tolerance or size > spec.max_bytes:
        raise RuntimeError(
            f"export of {path.stem} refused: difference {difference:g} (at most {spec.tolerance:g}), {size} bytes (at most "
            f"{spec.max_bytes})"
        )


def write_constants(
    path: Path, network: Path, kept: Mapping[str, Any], arrays: Mapping[str, Array], **facts: object
) -> dict[str, str]:
    """Write the constants that an expression_model.ExpressionModel reads beside its network; return the metadata.

    Args:
        path: file to write.
        network: the ONNX file, whose digest is the version.
        kept: `best.pt` of the training.
        arrays: arrays beside the basis.
        facts: further metadata.
    """
    metadata = {
        "version": hashlib.sha256(network.read_bytes()).hexdigest()[:12],
        "face_model": kept["face_model"],
        "num_expression": str(kept["num_expression"]),
        **{name: str(value) for name, value in facts.items()},
    }
    path.write_bytes(encode_arrays({**kept["basis"].arrays(), **arrays}, metadata))
    return metadata


class Delivery:
    """Folder of exported files that are delivered together, or not at all.

    Use as a context manager: write into `folder`, then call `deliver`.
    """

    def __init__(self, out: Path) -> None:
        """Take the folder that gets the files."""
        self._out = out
        self._temporary = TemporaryDirectory()
        self.folder = Path(self._temporary.name)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def deliver(self, name: str, report: dict[str, Any]) -> dict[str, Any]:
        """Write the report with digests of all files to `name`, copy all files, and return the report."""
        whole = {**report, "files": digests(self.folder)}
        (self.folder / name).write_text(json.dumps(whole, indent=1) + "\n")
        self._out.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.iterdir()):
            shutil.copyfile(path, self._out / path.name)
        return whole


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return sha256 and size of each file in a folder."""
    return {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
