"""Export a network: `python -m services.render.export --model ugc --out FOLDER`, or everybody, or headpose.

Writes `MODEL.onnx` (weights in half precision, arithmetic in the backend's), `MODEL.export.json` (the ExportSpec's facts, digests
and the parity report) and, with --int8, `MODEL.int8.onnx`. An export that does not agree with PyTorch fails and leaves nothing.

`python -m services.render.export --triton DIR` writes Triton's model repository from what was exported, and exports nothing anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from services.common.crops import BOX_SIZE
from services.common.errors import DubstageError
from services.render.backends.registry import WEIGHTS_FOLDER, file_sha256
from services.render.drawn_face import PICTURE_CHANNELS
from services.render.features import NUM_PICTURE_CHANNELS
from services.render.heatmaps import WINDOW_CHANNELS
from services.render.key_pictures import STATE_SIZE as KEYS_STATE_SIZE
from services.render.networks.everybody import EverybodyNetwork
from services.render.networks.headpose import HeadposeNetwork
from services.render.networks.refine import RefineNetwork
from services.render.networks.weights import load_everybody, load_headpose, load_refine
from services.render.render import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL
from services.render.triton.repository import add_arguments, spec_of, write_repository

_SMALL_TENSOR: Final = 512
_CALIBRATION_SPREAD: Final = 0.03


ServableNetwork = RefineNetwork | EverybodyNetwork | HeadposeNetwork


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """What is exported and how far it may be from PyTorch.

    Attributes:
        name: of the model in requests, one of EXPORTED.
        opset: ONNX operator set.
        tolerance_levels: largest difference of any output value, grey levels.
        batch_sizes: for which parity is measured.
        max_batch_size: largest batch that the network takes.
    """

    name: str = "ugc"
    opset: int = 18
    tolerance_levels: float = 0.05
    batch_sizes: tuple[int, ...] = (1, 3)
    max_batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Exported:
    """A network that can be exported.

    Attributes:
        weights: name of its weights file.
        load: reads that.
        num_channels: of its pictures.
        extra_state: numbers of an actor's state that are not the network's input.
    """

    weights: str
    load: Callable[[Path], ServableNetwork]
    num_channels: int
    extra_state: int = 0


EXPORTED: Final = {
    "ugc": Exported("refine.safetensors", load_refine, NUM_PICTURE_CHANNELS),
    "everybody": Exported("everybody.safetensors", load_everybody, WINDOW_CHANNELS, KEYS_STATE_SIZE),
    "headpose": Exported("headpose.safetensors", load_headpose, PICTURE_CHANNELS, KEYS_STATE_SIZE),
}


class ServedRefineNetwork(nn.Module):
    """A network as it is served: bytes in, grey levels out."""

    def __init__(self, network: ServableNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor, actor_state: Tensor) -> Tensor:
        """`pictures` uint8 [B, 160, 160, C], `actor_state` float32 [B, S]; float32 [B, 160, 160, 3], grey levels to add."""
        inputs = pictures.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        residual: Tensor = self.network(inputs, actor_state)
        return residual.permute(0, 2, 3, 1) * 255.0


class ParityError(Exception):
    """The exported network does not compute what PyTorch computes."""


def export(weights: Path, folder: Path, spec: ExportSpec, calibration: npt.NDArray[np.uint8] | None = None) -> Path:
    """Export, compare, and write the files; returns the path of the ONNX file.

    Args:
        weights: of the network (safetensors).
        folder: for the results.
        spec: what is wanted.
        calibration: uint8 [N, 160, 160, C], network inputs for the int8 variant; None: no such variant.

    Raises:
        ParityError: a difference over the tolerance.
    """
    kind = EXPORTED[spec.name]
    network = kind.load(weights)
    served = ServedRefineNetwork(network).eval()
    rng = np.random.default_rng(0)
    example = torch.from_numpy(rng.integers(0, 256, (2, BOX_SIZE, BOX_SIZE, kind.num_channels), dtype=np.uint8))
    state = torch.from_numpy(rng.normal(0.0, 0.1, (2, network.state_size)).astype(np.float32))
    batch = torch.export.Dim("batch", min=1, max=spec.max_batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.onnx"
        torch.onnx.export(
            served,
            (example, state),
            str(raw),
            input_names=[INPUT_PICTURES, INPUT_STATE],
            output_names=[OUTPUT_RESIDUAL],
            dynamic_shapes=({0: batch}, {0: batch}),
            opset_version=spec.opset,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        model = _without_traces(onnx.load(raw))
        onnx.save(model, raw)
        compact = Path(scratch) / "compact.onnx"
        onnx.save(_with_half_weights(model), compact)
        parity = measure_parity(served, compact, spec, rng)
        worst = max(report["max_difference_levels"] for report in parity)
        if worst > spec.tolerance_levels:
            raise ParityError(f"{worst:.4f} grey levels from PyTorch, {spec.tolerance_levels} allowed")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{spec.name}.onnx"
        target.write_bytes(compact.read_bytes())
        files = {"float": {"path": target.name, "sha256": file_sha256(target)}}
        if calibration is not None:
            quantised = folder / f"{spec.name}.int8.onnx"
            _quantise(raw, quantised, calibration, network.state_size)
            files["int8"] = {"path": quantised.name, "sha256": file_sha256(quantised)}
    facts = {
        "name": spec.name,
        "files": files,
        "prior_sha256": file_sha256(weights),
        "opset": spec.opset,
        "max_batch_size": spec.max_batch_size,
        "inputs": {
            INPUT_PICTURES: ["uint8", ["batch", BOX_SIZE, BOX_SIZE, kind.num_channels]],
            INPUT_STATE: ["float32", ["batch", network.state_size]],
        },
        "outputs": {OUTPUT_RESIDUAL: ["float32", ["batch", BOX_SIZE, BOX_SIZE, 3]]},
        "state_size": network.state_size + kind.extra_state,
        "default_state": "zeros",
        "network": network.config.to_metadata(),
        "parity": parity,
        "tolerance_levels": spec.tolerance_levels,
    }
    (folder / f"{spec.name}.export.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return target


def measure_parity(served: ServedRefineNetwork, path: Path, spec: ExportSpec, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Largest and mean difference from PyTorch, grey levels, on random pictures and states, for each batch size."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    reports = []
    for size in spec.batch_sizes:
        pictures = rng.integers(0, 256, (size, BOX_SIZE, BOX_SIZE, EXPORTED[spec.name].num_channels), dtype=np.uint8)
        states = rng.normal(0.0, 0.1, (size, served.network.state_size)).astype(np.float32)
        with torch.no_grad():
            expected = served(torch.from_numpy(pictures), torch.from_numpy(states)).numpy()
        got = session.run([OUTPUT_RESIDUAL], {INPUT_PICTURES: pictures, INPUT_STATE: states})[0]
        if got.shape != expected.shape:
            raise ParityError(f"shape {got.shape} where PyTorch has {expected.shape}")
        difference = np.abs(got - expected)
        reports.append(
            {
                "batch": size,
                "max_difference_levels": float(difference.max()),
                "mean_difference_levels": float(difference.mean()),
            }
        )
    return reports


def _with_half_weights(model: Any) -> Any:
    """Large float32 constants become float16 ones behind a Cast, which runtimes fold when they load: half the file."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _SMALL_TENSOR:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT, name=f"{name}_cast"))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes: they hold source paths of the machine that exported it."""
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    return model


def _quantise(raw: Path, target: Path, calibration: npt.NDArray[np.uint8], state_size: int) -> None:
    """Static quantisation of the convolutions (QDQ, per channel) with real inputs."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(calibration)
            self._rng = np.random.default_rng(0)

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            picture = next(self._rest, None)
            if picture is None:
                return None
            # Actors' states move the activations: their range must have room for them.
            state = self._rng.normal(0.0, _CALIBRATION_SPREAD, (1, state_size)).astype(np.float32)
            return {INPUT_PICTURES: picture[None], INPUT_STATE: state}

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            # Seven bits: with eight, CPUs without VNNI saturate when they add two products in 16 bits.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(EXPORTED), default="ugc")
    parser.add_argument("--weights", type=Path, help="safetensors; default: those that come with dubstage")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER)
    parser.add_argument("--int8", type=Path, metavar="PICTURES.npy", help="uint8 [N, 160, 160, C] to calibrate with")
    parser.add_argument("--triton", type=Path, metavar="DIR", help="write Triton's model repository from the models in --out")
    add_arguments(parser)
    given = parser.parse_args()
    if given.triton is not None:
        try:
            print(*write_repository(given.triton, given.out, spec_of(given)), sep="\n")
        except DubstageError as error:
            print(error.message, file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        return
    calibration = None if given.int8 is None else np.load(given.int8)
    weights = given.weights or WEIGHTS_FOLDER / EXPORTED[given.model].weights
    print(export(weights, given.out, ExportSpec(name=given.model), calibration))


if __name__ == "__main__":
    main()
