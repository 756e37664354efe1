"""The steps that all exports share: ONNX files, their admission, digests, delivery of a whole folder, and the command line."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from services.common.tensor_bytes import encode_arrays
from services.motion.models import WEIGHTS

_OPSET: Final = 17


def write_onnx(
    network: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, dict[int, str]] | None = None,
) -> None:
    """Writes a network with the shapes of `example`, but for the axes that are named."""
    torch.onnx.export(
        network.eval(),
        example,
        str(path),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes=dynamic_axes,
        opset_version=_OPSET,
        dynamo=False,  # one file, no external data
    )
    onnx.checker.check_model(str(path))


def admit(path: Path, difference: float, tolerance: float, max_bytes: int) -> None:
    """Looks at what was written.

    Raises:
        RuntimeError: it differs from its source by more than `tolerance`, or the file is larger than `max_bytes`.
    """
    size = path.stat().st_size
    if difference > tolerance or size > max_bytes:
        raise RuntimeError(f"export of {path.stem} refused: difference {difference:g}, {size} bytes")


def write_constants(
    path: Path, network: Path, kept: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], **facts: object
) -> dict[str, str]:
    """Writes what a predictor_model.PredictorModel reads beside its network; returns the metadata.

    Args:
        path: file to write.
        network: the ONNX file, after whose digest the version is called.
        kept: `best.pt` of the training.
        arrays: those that go with the basis.
        facts: more metadata.
    """
    metadata = {
        "version": hashlib.sha256(network.read_bytes()).hexdigest()[:12],
        "face_model": kept["face_model"],
        "num_expression": str(kept["num_expression"]),
        **{name: str(value) for name, value in facts.items()},
    }
    path.write_bytes(encode_arrays({**kept["basis"].arrays(), **arrays}, metadata))
    return metadata


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of each file."""
    return {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }


def deliver(folder: Path, report: dict[str, Any], name: str, out: Path) -> None:
    """Puts the report beside the files, and copies all of them to `out`."""
    (folder / name).write_text(json.dumps(report, indent=1) + "\n")
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        shutil.copyfile(path, out / path.name)


def run_command(description: str | None, runs: Mapping[str, tuple[str, str]], export: Callable[..., dict[str, Any]]) -> int:
    """Command line; the exit code is 1 where the export is refused.

    Args:
        description: of the command.
        runs: option -> default folder of the training run, and its help.
        export: from those folders, in this order, and the one that gets the models to the report.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, told) in runs.items():
        parser.add_argument(f"--{name}", type=Path, default=Path(default), help=told)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder that gets the models")
    arguments = parser.parse_args()
    try:
        report = export(*(getattr(arguments, name) for name in runs), arguments.out)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"version": report["version"], "parity": report["parity"]}))
    return 0
