"""Export of motion networks: ONNX files, the constants and the sheet of the folder of weights, and delivery of the files.

A folder of weights holds motion_constants.safetensors: the landmark basis of the style with the mean speaker, and, under names that
start with `sync_`, the landmark basis of the sync network. An export replaces its own arrays and keeps the others. The version is
the digest of the four networks that belong to these constants.

Exports of all predictors share the description of a network and the parity check of ONNX files. The last step of an export writes
constants, sheet and card beside the exported networks.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from research.motion.basis import SHARED_CONSTANTS, check_style_basis
from research.motion.sync import SyncConfig, SyncNetwork
from research.motion.training import load_network, origin_of, read_best
from research.training.run_folder import read_config
from services.common.array_types import Array, Float32
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.store.tensor_bytes import NamedArrays, encode_arrays
from services.motion.expression import ExpressionModel
from services.motion.features import BANDS, NUM_SYNC
from services.motion.runtime import read_constants
from services.motion.types import ROWS_PER_FRAME

_OPSET: Final = 17
_LENGTH: Final = 64
"""Length of dynamic axes in examples."""
SHARED_NETWORKS: Final = ("style_encoder", "motion", "sync_audio", "sync_mouth")
"""Networks that belong to the shared constants, in the order of the version's digest."""
SHARED_SHEET: Final = "export.json"
TOLERANCE: Final = 2e-4
PARITY_RUNS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionExportSpec:
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


def write_onnx(network: nn.Module, folder: Path, spec: MotionExportSpec) -> Path:
    """Write folder/<name>.onnx and return its path."""
    import onnx

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


def measure_parity(network: nn.Module, path: Path, spec: MotionExportSpec, inputs: Iterator[dict[str, Float32]]) -> float:
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


def admit(name: str, difference: float, spec: MotionExportSpec) -> None:
    """Check an exported network.

    Raises:
        ContractBrokenError: the network differs from its source by more than the tolerance.
    """
    if not difference <= spec.tolerance:
        raise ContractBrokenError(
            f"export of {name} refused: the file differs from PyTorch by {difference:g}, at most {spec.tolerance:g} is allowed"
        )


def write_constants(path: Path, network: Path, kept: NamedArrays, **facts: object) -> dict[str, str]:
    """Write the constants that a services.motion.expression.ExpressionModel reads beside its network; return the metadata.

    Args:
        network: the ONNX file, whose digest is the version.
        kept: file of the run (run_folder.read_best): constants beside the network, and the facts of the morphable model.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunExport:
    """A finished run that is exported.

    Attributes:
        name: name of the network on the command line.
        kept: network and constants of the run.
        constants_file: name of the file of constants.
        sheet: name of the sheet and of the card's copy, without endings.
    """

    run: Path
    name: str
    kept: NamedArrays
    constants_file: str
    sheet: str

    def deliver(self, delivery: Delivery, networks: Sequence[Path], measured: Mapping[str, Any], **numbers: object) -> list[Path]:
        """Write the constants and the sheet, copy the card, and deliver all files; return their paths.

        Args:
            networks: paths of the ONNX files. The digest of the first is the version.
            measured: entries of the sheet: what was exported, and how far the files differ from PyTorch.
            numbers: further metadata of the constants.
        """
        folder = delivery.folder
        constants = folder / self.constants_file
        facts = {
            **write_constants(constants, networks[0], self.kept, **numbers),
            "training": origin_of(self.run, self.name, folder / f"{self.sheet}.card.md"),
            **measured,
            "files": digests([*networks, constants]),
        }
        write_sheet(folder / f"{self.sheet}.json", facts)
        return delivery.deliver()


def open_run(run: Path, out: Path, *, name: str, constants_file: str, sheet: str) -> RunExport:
    """Return a run to export.

    Args:
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        name: name of the network on the command line.
        constants_file: name of the file of constants.
        sheet: name of the sheet and of the card's copy, without endings.

    Raises:
        InvalidRequestError: the run is not finished, or the folder of weights holds another landmark basis.
    """
    kept = read_best(run, name)
    check_style_basis(kept, out, name)
    return RunExport(run=run, name=name, kept=kept, constants_file=constants_file, sheet=sheet)


def export_expression(
    run: Path,
    out: Path,
    *,
    name: str,
    model: type[ExpressionModel],
    inputs: dict[str, tuple[int | None, ...]],
    make: Callable[[Mapping[str, Any]], nn.Module],
) -> list[Path]:
    """Export a network with its constants, or nothing.

    Args:
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        name: name of the network on the command line.
        model: what serves the network; gives the names of the files.
        inputs: shape of each input by name.
        make: returns the network of the part `network` of the run's configuration, with any weights.

    Returns:
        Paths of the files.

    Raises:
        InvalidRequestError: the run is not finished, or the folder holds another landmark basis.
        ContractBrokenError: the exported network differs from its source.
    """
    spec = MotionExportSpec(name=Path(model.network_file).stem, inputs=inputs, outputs=("expression",), parity_runs=32)
    opened = open_run(run, out, name=name, constants_file=model.constants_file, sheet=spec.name)
    network = make(read_config(run, name)["network"])
    load_network(network, opened.kept)
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        difference = measure_parity(network, path, spec, spec.examples())
        admit(spec.name, difference, spec)
        return opened.deliver(delivery, [path], {"parity": difference, "spec": asdict(spec)})


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedExport:
    """Part of one run in the files that several networks share.

    Attributes:
        name: name of the trained network.
        card: name of the card's copy, without its ending .card.md.
        part: key of the run's origin in the sheet.
        modules: networks in PyTorch with their descriptions.
        arrays: returns the run's arrays of the shared constants.
    """

    name: str
    card: str
    part: str
    modules: Sequence[tuple[nn.Module, MotionExportSpec]]
    arrays: Callable[[], Mapping[str, Array]]


def plausible(example: dict[str, Float32]) -> dict[str, Float32]:
    """Return random inputs whose phones are probabilities and whose energies have a plausible scale."""
    for name in {"content", "heard"} & set(example):
        value = example[name]
        split = value.shape[-1] - len(BANDS)
        sharp = np.exp(4.0 * value[..., :split])
        value[..., :split] = sharp / sharp.sum(axis=-1, keepdims=True)
        value[..., split:] = value[..., split:] if name == "content" else 2.0 * value[..., split:] - 6.0
    return example


def export_shared(run: Path, out: Path, export: SharedExport) -> list[Path]:
    """Write a run's networks, and replace its part of the shared constants and of the sheet, or write nothing.

    Args:
        run: folder of a finished run.
        out: folder of weights.
        export: what the run gives.

    Returns:
        Paths of the files.

    Raises:
        ModelNotFoundError: the folder of weights has no constants.
        InvalidRequestError: the folder of weights lacks another network that the version needs, or the sheet.
        ContractBrokenError: a network differs from its source.
    """
    held = read_constants(out / SHARED_CONSTANTS)
    own = {spec.name for _, spec in export.modules}
    others = {name: _there(out / f"{name}.onnx") for name in SHARED_NETWORKS if name not in own}
    sheet: dict[str, Any] = json.loads(_there(out / SHARED_SHEET).read_text(encoding="utf-8"))
    parity, specs = dict(sheet.get("parity", {})), {each["name"]: each for each in sheet.get("specs", [])}
    with Delivery(out) as delivery:
        folder = delivery.folder
        for module, spec in export.modules:
            path = write_onnx(module, folder, spec)
            parity[spec.name] = measure_parity(module, path, spec, map(plausible, spec.examples()))
            admit(spec.name, parity[spec.name], spec)
            specs[spec.name] = asdict(spec)
        networks = [others.get(name, folder / f"{name}.onnx") for name in SHARED_NETWORKS]
        version = hashlib.sha256(b"".join(path.read_bytes() for path in networks)).hexdigest()[:12]
        constants = folder / SHARED_CONSTANTS
        constants.write_bytes(encode_arrays({**held.arrays, **export.arrays()}, {**held.metadata, "version": version}))
        facts = {
            **sheet,
            "version": version,
            export.part: origin_of(run, export.name, folder / f"{export.card}.card.md"),
            "parity": parity,
            "files": digests([*networks, constants]),
            "specs": [specs[name] for name in SHARED_NETWORKS if name in specs],
        }
        write_sheet(folder / SHARED_SHEET, facts)
        return delivery.deliver()


def export_sync(run: Path, out: Path) -> list[Path]:
    """Export the sync network: sync_audio.onnx, sync_mouth.onnx and its arrays of the shared constants. See `export_shared`."""
    kept = read_best(run, "sync")
    config = SyncConfig(**read_config(run, "sync")["network"])
    network = SyncNetwork(config)
    load_network(network, kept)
    embedding: dict[str, Any] = {"outputs": ("embedding",), "dynamic_outputs": ("embedding",)}
    limits: dict[str, Any] = {"tolerance": TOLERANCE, "parity_runs": PARITY_RUNS}
    audio = MotionExportSpec(name="sync_audio", inputs={"heard": (1, None, ROWS_PER_FRAME, NUM_SYNC)}, **embedding, **limits)
    seen = MotionExportSpec(name="sync_mouth", inputs={"coefficients": (1, None, config.num_coefficients)}, **embedding, **limits)
    own = {name: values for name, values in kept.arrays.items() if name.startswith("sync_")}
    modules = ((network.audio, audio), (network.mouth, seen))
    given = SharedExport(name="sync", card="sync", part="sync_training", modules=modules, arrays=lambda: own)
    return export_shared(run, out, given)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InvalidRequestError(
            f"{path} is missing: {path.parent} is not a whole folder of weights; give --output a folder that does not exist yet",
            field="output",
        )
    return path
