"""Triton's model repository, written from an export: `python -m services.render.triton.repository DIR`.

    DIR/<model>/config.pbtxt           from the export sheet beside the ONNX file (<model>.export.json)
    DIR/<model>/<version>/model.onnx   with its weights file in float32, and model.py, the module of Triton's Python backend

A new digest becomes a new version. The version before stays in the folder, so that an older renderer still finds its network. This
module needs neither PyTorch nor ONNX, so an image without them can write the repository.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from services.common.errors import DubstageError, InvalidRequestError
from services.common.files import file_sha256, write_whole
from services.render.backends.base import PLAIN_CHOICE, Device
from services.render.backends.model_files import WEIGHTS_FOLDER, TensorForm, read_models, tensor_forms
from services.render.types import Precision

DIGEST: Final = "sha256."
"""Parameters `sha256.<version>` of a configuration hold the digest of each version's network."""
MODEL_FILE: Final = Path(__file__).with_name("model.py")
_KEPT_VERSIONS: Final = 2
_TYPES: Final = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RepositorySpec:
    """Options with which Triton runs the models.

    Attributes:
        device: device that computes the networks.
        precision: variant of the network. CUDA computes in float32 only.
        num_threads: threads of one inference on the CPU.
        instances: instances of each model, each a process; with CUDA, for each GPU.
        max_batch_size: most frames in one inference, of all streams together; at most the export's number.
        queue_delay_us: how long a request waits for others to share its batch, microseconds.
    """

    device: Device = "cpu"
    precision: Precision = PLAIN_CHOICE["cpu"].precision
    num_threads: int = 1
    instances: int = 1
    max_batch_size: int = 16
    queue_delay_us: int = 500

    def __post_init__(self) -> None:
        if self.precision is Precision.BFLOAT16:
            raise InvalidRequestError("Triton's ONNX Runtime does not compute in bfloat16", field="--triton-precision")
        if self.device == "cuda" and self.precision is not Precision.FLOAT32:
            raise InvalidRequestError(
                f"--triton-device cuda computes in float32, not in {self.precision}", field="--triton-precision"
            )
        for field in ("num_threads", "instances", "max_batch_size"):
            if getattr(self, field) < 1:
                raise InvalidRequestError(f"{field} must be at least 1", field=f"--triton-{field.replace('_', '-')}")
        if self.queue_delay_us < 0:
            raise InvalidRequestError("queue_delay_us must not be negative", field="--triton-queue-delay-us")


def write_repository(folder: Path, weights: Path, spec: RepositorySpec) -> list[Path]:
    """Write all exported models of a folder to a repository; return the models' folders there.

    A version's folder appears whole. After that, the configuration that names the version is replaced in one step: a server that
    loads meanwhile sees the old state or the new one.

    Args:
        folder: the repository; created if missing. Other models in the folder stay.
        spec: how Triton is to run the models.

    Raises:
        ModelNotFoundError, ArtefactCorruptError: from the exported files.
        InvalidRequestError: a batch is larger than the network was exported for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, file in read_models(weights, spec.precision).items():
        facts = json.loads((weights / f"{name}.export.json").read_text(encoding="utf-8"))
        if spec.max_batch_size > int(facts["max_batch_size"]):
            raise InvalidRequestError(
                f"model {name!r} was exported for batches up to {facts['max_batch_size']}", field="--triton-max-batch-size"
            )
        target = folder / name
        target.mkdir(exist_ok=True)
        contents = {"model.onnx": file.path, "model.py": MODEL_FILE}
        if file.weights is not None:
            contents[file.weights.name] = file.weights
        version = _version_with(target, contents)
        kept = sorted(_versions(target))[-_KEPT_VERSIONS:]
        digests = {number: file_sha256(target / str(number) / "model.onnx") for number in {*kept, version}}
        write_whole(target / "config.pbtxt", config_text(facts, spec, version, digests).encode())
        for number in _versions(target) - digests.keys():
            shutil.rmtree(target / str(number))
        written.append(target)
    return written


def config_text(facts: dict[str, Any], spec: RepositorySpec, version: int, digests: dict[int, str]) -> str:
    """Return config.pbtxt of one model.

    Args:
        facts: facts of the export (<model>.export.json).
        spec: how Triton is to run the model.
        version: version that is served unless a renderer asks for another.
        digests: digests of the network by version.
    """
    inputs, outputs = tensor_forms(facts["inputs"]), tensor_forms(facts["outputs"])
    kind = "KIND_CPU" if spec.device == "cpu" else "KIND_GPU"
    parameters = {f"{DIGEST}{number}": digest for number, digest in sorted(digests.items())} | {
        "num_threads": str(spec.num_threads),
        "precision": str(spec.precision),
        "prior_sha256": str(facts["prior_sha256"]),
        "runtime": "onnxruntime",
        "device": spec.device,
    }
    warm = "".join(
        f'    inputs {{ key: "{form.name}" value {{ data_type: {_TYPES[form.dtype]} dims: {_dims(form)} zero_data: true }} }}\n'
        for form in inputs
    )
    lines = [
        "# Written by the export of dubstage's render stage.",
        f'name: "{facts["name"]}"',
        'backend: "python"',
        f"max_batch_size: {spec.max_batch_size}",
        *(_tensor("input", form) for form in inputs),
        *(_tensor("output", form) for form in outputs),
        f"version_policy {{ specific {{ versions: [ {version} ] }} }}",
        f"dynamic_batching {{ max_queue_delay_microseconds: {spec.queue_delay_us} }}",
        f"instance_group [ {{ count: {spec.instances} kind: {kind} }} ]",
        f'model_warmup [\n  {{\n    name: "one frame"\n    batch_size: 1\n{warm}  }}\n]',
        *(f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}' for name, value in parameters.items()),
    ]
    return "\n".join(lines) + "\n"


def _tensor(direction: str, form: TensorForm) -> str:
    return f'{direction} [ {{ name: "{form.name}" data_type: {_TYPES[form.dtype]} dims: {_dims(form)} }} ]'


def _dims(form: TensorForm) -> str:
    """Return a shape as Triton writes it: without the batch axis, which Triton adds."""
    return f"[ {', '.join(str(size) for size in form.shape)} ]"


def _versions(model: Path) -> set[int]:
    return {int(entry.name) for entry in model.iterdir() if entry.is_dir() and entry.name.isdigit()}


def _version_with(model: Path, contents: dict[str, Path]) -> int:
    """Return the newest version with exactly these files, or make a new version."""
    for number in sorted(_versions(model), reverse=True):
        present = {entry.name: entry for entry in (model / str(number)).iterdir() if entry.is_file()}
        if present.keys() == contents.keys() and all(
            file_sha256(present[name]) == file_sha256(path) for name, path in contents.items()
        ):
            return number
    number = max(_versions(model), default=0) + 1
    # Write in the repository's own file system, so that the folder can be moved to its place in one step.
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


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options `--triton-*`, which `_spec_of` reads."""
    group = parser.add_argument_group("Triton", "how Triton is to run the models")
    group.add_argument("--triton-device", choices=get_args(Device), default="cpu", help="device that computes the networks")
    group.add_argument(
        "--triton-precision",
        type=Precision,
        choices=list(Precision),
        default=None,
        help="default: the device's precision",
    )
    group.add_argument("--triton-threads", type=int, default=1, help="threads of one inference on the CPU")
    group.add_argument("--triton-instances", type=int, default=1, help="instances of each model")
    group.add_argument("--triton-max-batch-size", type=int, default=16, help="most frames in one inference, over all streams")
    group.add_argument("--triton-queue-delay-us", type=int, default=500, help="how long a request waits for others, microseconds")


def _spec_of(given: argparse.Namespace) -> RepositorySpec:
    """Return what the options ask for.

    Raises:
        InvalidRequestError: the options contradict each other.
    """
    default = PLAIN_CHOICE[given.triton_device].precision
    return RepositorySpec(
        device=given.triton_device,
        precision=given.triton_precision or default,
        num_threads=given.triton_threads,
        instances=given.triton_instances,
        max_batch_size=given.triton_max_batch_size,
        queue_delay_us=given.triton_queue_delay_us,
    )


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.render.triton.repository", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the model repository")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder with exported models")
    _add_arguments(parser)
    given = parser.parse_args()
    try:
        for path in write_repository(given.folder, given.weights, _spec_of(given)):
            print(path)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{given.folder} cannot be written: {error}", file=sys.stderr)
        return InvalidRequestError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
