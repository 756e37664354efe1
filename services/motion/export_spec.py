"""What the exports of all predictors share: the description of a network, ONNX files and their admission, and delivery of files."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from services.common.array_types import Float32
from services.common.errors import ContractBroken
from services.common.store.tensor_bytes import NamedArrays, encode_arrays

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
        parity_runs: number of random inputs, or of steps of a recurrent network, that are compared.
        seed: seed of the random inputs.
    """

    name: str
    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    dynamic_outputs: tuple[str, ...] = ()
    tolerance: float = 1e-4
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself and of tracing
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


def admit(name: str, difference: float, spec: ExportSpec) -> None:
    """Check an exported network.

    Raises:
        ContractBroken: the network differs from its source by more than the tolerance.
    """
    if not difference <= spec.tolerance:
        raise ContractBroken(
            f"export of {name} refused: the file differs from PyTorch by {difference:g}, at most {spec.tolerance:g} is allowed"
        )


def write_constants(path: Path, network: Path, kept: NamedArrays, **facts: object) -> dict[str, str]:
    """Write the constants that an expression_model.ExpressionModel reads beside its network; return the metadata.

    Args:
        path: file to write.
        network: the ONNX file, whose digest is the version.
        kept: file of the run (train.run_files): constants beside the network, and the facts of the morphable model.
        facts: further metadata.
    """
    metadata = {
        **kept.metadata,
        "version": hashlib.sha256(network.read_bytes()).hexdigest()[:12],
        **{name: str(value) for name, value in facts.items()},
    }
    arrays = {name: values for name, values in kept.arrays.items() if not name.startswith("network.")}
    path.write_bytes(encode_arrays(arrays, metadata))
    return metadata


class Delivery:
    """Folder of exported files that are delivered together, or not at all.

    Use as a context manager: write into `folder`, then call `deliver`.

    Args:
        out: folder that gets the files.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        out.mkdir(parents=True, exist_ok=True)
        # On the same file system as the folder, so that each file is moved and never half there.
        self._temporary = TemporaryDirectory(prefix=".export-", dir=out)
        self.folder = Path(self._temporary.name)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def deliver(self) -> list[Path]:
        """Move all files into the folder that gets them, and return their paths."""
        delivered = [self._out / path.name for path in sorted(self.folder.iterdir())]
        for path in delivered:
            os.replace(self.folder / path.name, path)
        return delivered


def write_sheet(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of an export as JSON."""
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def digests(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return sha256 and size of each file by its name."""
    return {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": path.stat().st_size}
        for path in sorted(paths)
    }
