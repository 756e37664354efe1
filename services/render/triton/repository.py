"""Triton's model repository, written from an export: `python -m services.render.triton.repository DIR`.

    DIR/<model>/config.pbtxt        from the facts of the ExportSpec beside the ONNX file (<model>.export.json)
    DIR/<model>/<version>/model.onnx   and, for the Python backend, model.py

A new digest becomes a new version; the one before stays in the folder, so that an older renderer still finds the network that it
belongs to. Needs neither PyTorch nor ONNX, so an image can be built with it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from services.common.errors import DubstageError, InvalidRequest
from services.render.backends.choice import DEFAULTS
from services.render.backends.registry import WEIGHTS_FOLDER, file_sha256, read_models
from services.render.types import Precision

Flavour = Literal["python", "onnxruntime"]
"""`python`: ONNX Runtime in Triton's Python backend, on the CPU; `onnxruntime`: NVIDIA's ONNX Runtime backend, on a GPU."""

DIGEST: Final = "sha256."
"""Parameters `sha256.<version>` of a configuration name the digest of each version's network."""
MODEL_FILE: Final = Path(__file__).with_name("model.py")
_KEPT_VERSIONS: Final = 2
_TYPES: Final = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RepositorySpec:
    """How Triton is to run the models.

    Attributes:
        flavour: which of Triton's backends.
        precision: which variant of the network.
        num_threads: of one inference on the CPU.
        instances: of the model, each a process of its own (python) or an execution context (onnxruntime).
        max_batch_size: most frames in one inference, of all streams together; at most the export's.
        queue_delay_us: how long a request waits for others to share its batch, microseconds.
        tensorrt: let ONNX Runtime hand the network to TensorRT (flavour onnxruntime).
    """

    flavour: Flavour = "python"
    precision: Precision = DEFAULTS["cpu"].precision
    num_threads: int = 1
    instances: int = 1
    max_batch_size: int = 16
    queue_delay_us: int = 500
    tensorrt: bool = False

    def __post_init__(self) -> None:
        if self.precision is Precision.BFLOAT16:
            raise InvalidRequest("Triton's ONNX Runtime does not compute in bfloat16", field="--triton-precision")
        if self.flavour == "python" and self.tensorrt:
            raise InvalidRequest("TensorRT needs --triton-flavour onnxruntime", field="--triton-tensorrt")
        for field in ("num_threads", "instances", "max_batch_size"):
            if getattr(self, field) < 1:
                raise InvalidRequest(f"{field} must be at least 1", field=f"--triton-{field.replace('_', '-')}")

    @property
    def runtime(self) -> str:
        """What computes, for journal keys."""
        return "tensorrt" if self.tensorrt else "onnxruntime"


def write_repository(folder: Path, weights: Path, spec: RepositorySpec) -> list[Path]:
    """Write all exported models of a folder; returns their folders.

    A version's folder appears whole, and the configuration that names it is replaced after that, in one step: a server that loads
    meanwhile sees the old state or the new one.

    Args:
        folder: the repository; made where it is missing, other models in it stay.
        weights: folder with exported models.
        spec: how they are to run.

    Raises:
        ModelNotFound, ArtefactCorrupt: from the exported files.
        InvalidRequest: a batch is larger than the network was exported for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, file in read_models(weights, spec.precision).items():
        facts = json.loads((weights / f"{name}.export.json").read_text(encoding="utf-8"))
        if spec.max_batch_size > int(facts["max_batch_size"]):
            raise InvalidRequest(
                f"model {name!r} was exported for batches up to {facts['max_batch_size']}", field="--triton-max-batch-size"
            )
        target = folder / name
        target.mkdir(exist_ok=True)
        contents = {"model.onnx": file.path} | ({"model.py": MODEL_FILE} if spec.flavour == "python" else {})
        version = _version_with(target, contents)
        kept = sorted(_versions(target))[-_KEPT_VERSIONS:]
        digests = {number: file_sha256(target / str(number) / "model.onnx") for number in {*kept, version}}
        _replace(target / "config.pbtxt", config_text(facts, spec, version, digests))
        for number in _versions(target) - digests.keys():
            shutil.rmtree(target / str(number))
        written.append(target)
    return written


def config_text(facts: dict[str, Any], spec: RepositorySpec, version: int, digests: dict[int, str]) -> str:
    """config.pbtxt of one model.

    Args:
        facts: of the export (<model>.export.json).
        spec: how it is to run.
        version: that is served unless a renderer asks for another.
        digests: of the network by version.
    """
    kind = "KIND_CPU" if spec.flavour == "python" else "KIND_GPU"
    backend = 'backend: "python"' if spec.flavour == "python" else 'platform: "onnxruntime_onnx"'
    parameters = {f"{DIGEST}{number}": digest for number, digest in sorted(digests.items())} | {
        "num_threads": str(spec.num_threads),
        "precision": str(spec.precision),
        "prior_sha256": str(facts["prior_sha256"]),
        "runtime": spec.runtime,
    }
    if spec.flavour == "onnxruntime":
        parameters["intra_op_thread_count"] = str(spec.num_threads)
    warm = "".join(
        f'    inputs {{ key: "{name}" value {{ data_type: {_TYPES[kind_of]} dims: {_dims(shape)} zero_data: true }} }}\n'
        for name, (kind_of, shape) in facts["inputs"].items()
    )
    lines = [
        "# Written by the export of dubstage's render stage.",
        f'name: "{facts["name"]}"',
        backend,
        f"max_batch_size: {spec.max_batch_size}",
        *(_tensor("input", name, form) for name, form in facts["inputs"].items()),
        *(_tensor("output", name, form) for name, form in facts["outputs"].items()),
        f"version_policy {{ specific {{ versions: [ {version} ] }} }}",
        f"dynamic_batching {{ max_queue_delay_microseconds: {spec.queue_delay_us} }}",
        f"instance_group [ {{ count: {spec.instances} kind: {kind} }} ]",
        f'model_warmup [\n  {{\n    name: "one frame"\n    batch_size: 1\n{warm}  }}\n]',
        *(f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in parameters.items()),
    ]
    if spec.tensorrt:
        lines.append(
            'optimization { execution_accelerators { gpu_execution_accelerator : [ { name: "tensorrt" '
            'parameters { key: "precision_mode" value: "FP32" } } ] } }'
        )
    return "\n".join(lines) + "\n"


def _tensor(direction: str, name: str, form: list[Any]) -> str:
    kind, shape = form
    return f'{direction} [ {{ name: "{name}" data_type: {_TYPES[kind]} dims: {_dims(shape)} }} ]'


def _dims(shape: list[Any]) -> str:
    """Without the batch axis."""
    return f"[ {', '.join(str(size) for size in shape[1:])} ]"


def _versions(model: Path) -> set[int]:
    return {int(entry.name) for entry in model.iterdir() if entry.is_dir() and entry.name.isdigit()}


def _version_with(model: Path, contents: dict[str, Path]) -> int:
    """The newest version with exactly these files, or a new one."""
    for number in sorted(_versions(model), reverse=True):
        present = {entry.name: entry for entry in (model / str(number)).iterdir() if entry.is_file()}
        if present.keys() == contents.keys() and all(
            file_sha256(present[name]) == file_sha256(path) for name, path in contents.items()
        ):
            return number
    number = max(_versions(model), default=0) + 1
    # In the repository's own file system, so that the folder can be moved into its place in one step.
    scratch = Path(tempfile.mkdtemp(prefix=f".{number}.", dir=model))
    try:
        for name, path in contents.items():
            shutil.copyfile(path, scratch / name)
        scratch.chmod(0o755)
        scratch.rename(model / str(number))
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return number


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options `--triton-*` of the command line; spec_of reads them."""
    group = parser.add_argument_group("Triton", "how Triton is to run the models")
    group.add_argument("--triton-flavour", choices=get_args(Flavour), default="python")
    group.add_argument("--triton-precision", type=Precision, choices=list(Precision), default=None, help="default: the device's")
    group.add_argument("--triton-threads", type=int, default=1, help="threads of one inference on the CPU")
    group.add_argument("--triton-instances", type=int, default=1, help="instances of each model")
    group.add_argument("--triton-max-batch-size", type=int, default=16, help="most frames in one inference, over all streams")
    group.add_argument("--triton-queue-delay-us", type=int, default=500, help="how long a request waits for others, microseconds")
    group.add_argument("--triton-tensorrt", action="store_true", help="TensorRT within the ONNX Runtime backend")


def spec_of(given: argparse.Namespace) -> RepositorySpec:
    """What the options ask for.

    Raises:
        InvalidRequest: they contradict each other.
    """
    default = DEFAULTS["cpu" if given.triton_flavour == "python" else "cuda"].precision
    return RepositorySpec(
        flavour=given.triton_flavour,
        precision=given.triton_precision or default,
        num_threads=given.triton_threads,
        instances=given.triton_instances,
        max_batch_size=given.triton_max_batch_size,
        queue_delay_us=given.triton_queue_delay_us,
        tensorrt=given.triton_tensorrt,
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m services.render.triton.repository", description=__doc__)
    parser.add_argument("folder", type=Path, help="the model repository")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder with exported models")
    add_arguments(parser)
    given = parser.parse_args()
    try:
        for path in write_repository(given.folder, given.weights, spec_of(given)):
            print(path)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
