"""Export of a network to ONNX: one specification and one routine for all renderers.

The ONNX file computes in the backend's precision. Its large tensors are the half-precision tensors of the weights file beside it
(ONNX external data), which personalisation reads too, so each weight is stored once. An export that does not agree with PyTorch
fails and leaves no file.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from services.common.array_types import Array, UInt8
from services.common.errors import ContractBroken
from services.common.face.crops import BOX_SIZE
from services.common.store.exported_network import write_whole
from services.render.backends.registry import BATCH_AXIS, WEIGHTS_DIGEST, WEIGHTS_FOLDER, TensorForm, file_sha256
from services.render.networks.unet import UNetTrunk
from services.render.quantisation import quantise
from services.render.renderer import ExportJob
from services.render.tensor_names import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL

_SMALL_TENSOR: Final = 512
_STATE_SPREAD: Final = 0.1
"""Standard deviation of random numbers in inputs that are no pictures, such as an actor's state."""


class ServedNetwork(nn.Module):
    """Network as served: bytes in, grey levels out.

    Args:
        network: U-Net that takes pictures in [0, 1] and actors' states.
    """

    def __init__(self, network: UNetTrunk) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor, actor_state: Tensor) -> Tensor:
        """Return grey levels to add, float32 [B, H, W, 3].

        Args:
            pictures: uint8 [B, H, W, C].
            actor_state: float32 [B, S].
        """
        inputs = pictures.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        residual: Tensor = self.network(inputs, actor_state)
        return residual.permute(0, 2, 3, 1) * 255.0


def picture_and_state(num_channels: int) -> Callable[[UNetTrunk], tuple[TensorForm, ...]]:
    """Return the `inputs` of an ExportSpec for a network behind ServedNetwork.

    Args:
        num_channels: channels of the pictures.
    """

    def forms(network: UNetTrunk) -> tuple[TensorForm, ...]:
        return (
            TensorForm(INPUT_PICTURES, "uint8", (BOX_SIZE, BOX_SIZE, num_channels), batched=True),
            TensorForm(INPUT_STATE, "float32", (network.state_size,), batched=True),
        )

    return forms


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSpec:
    """How one network is exported, and how far the ONNX file may be from PyTorch.

    Attributes:
        name: name of the model in requests.
        weights: name of the weights file.
        load: reads a weights file. The network has `state_size` and `config.to_metadata()`.
        inputs: returns the inputs of the served module for a network, in the order of the module's arguments.
        served: returns the module to export, which gives OUTPUT_RESIDUAL.
        extra_state: numbers of an actor's state that are no input of the network.
        opset: ONNX operator set.
        tolerance_levels: largest difference of any output value, grey levels.
        batch_sizes: batch sizes for which the difference is measured.
        max_batch_size: largest batch that the network takes.
    """

    name: str
    weights: str
    load: Callable[[Path], Any]
    inputs: Callable[[Any], tuple[TensorForm, ...]]
    served: Callable[[Any], nn.Module] = ServedNetwork
    extra_state: int = 0
    opset: int = 18
    tolerance_levels: float = 0.05
    batch_sizes: tuple[int, ...] = (1, 3)
    max_batch_size: int = 64


def export_network(spec: ExportSpec, job: ExportJob) -> Path:
    """Export a network, compare the result with PyTorch, and write the files; return the path of the ONNX file.

    Args:
        spec: the network.
        job: weights file, folder for the results, pictures to calibrate the int8 variant with.

    Raises:
        ModelNotFound: the weights file is missing or holds another network.
        InvalidRequest: the calibration pictures do not fit the network's inputs. Nothing is written.
        ContractBroken: a difference is over the tolerance. Nothing is written.
    """
    weights = job.weights or WEIGHTS_FOLDER / spec.weights
    network = spec.load(weights)
    served, inputs = spec.served(network).eval(), spec.inputs(network)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        raw, compact = Path(scratch) / "raw.onnx", Path(scratch) / "compact.onnx"
        _write_raw(served, inputs, spec, raw, rng)
        model = _without_traces(onnx.load(raw))
        onnx.save(model, raw)
        content = weights.read_bytes()
        compact.with_name(spec.weights).write_bytes(content)
        onnx.save(refer_to_weights(_with_half_weights(model), content, spec.weights), compact)
        output_shape, parity = _measured(served, inputs, compact, spec, rng)
        made = {"float": (f"{spec.name}.onnx", compact.read_bytes())}
        if job.calibration is not None:
            quantised = Path(scratch) / "int8.onnx"
            quantise(raw, quantised, inputs, job.calibration)
            made["int8"] = f"{spec.name}.int8.onnx", quantised.read_bytes()
    job.folder.mkdir(parents=True, exist_ok=True)
    for file, data in ((spec.weights, content), *made.values()):
        write_whole(job.folder / file, data)
    files = {variant: {"path": file, "sha256": hashlib.sha256(data).hexdigest()} for variant, (file, data) in made.items()}
    files["float"]["weights"] = spec.weights
    facts = {
        "name": spec.name,
        "files": files,
        "prior_sha256": file_sha256(weights),
        "opset": spec.opset,
        "max_batch_size": spec.max_batch_size,
        "inputs": {form.name: [form.dtype, [*_batch_axis(form), *form.shape]] for form in inputs},
        "outputs": {OUTPUT_RESIDUAL: ["float32", [BATCH_AXIS, *output_shape]]},
        "state_size": network.state_size + spec.extra_state,
        "default_state": "zeros",
        "network": network.config.to_metadata(),
        "parity": parity,
        "tolerance_levels": spec.tolerance_levels,
    }
    if job.training is not None:
        facts["training"] = dict(job.training)
    # The sheet comes last: a server that reads the folder meanwhile finds the old sheet with its digests, and refuses the files.
    write_whole(job.folder / f"{spec.name}.export.json", (json.dumps(facts, indent=2) + "\n").encode())
    return job.folder / f"{spec.name}.onnx"


def _write_raw(served: nn.Module, inputs: Sequence[TensorForm], spec: ExportSpec, path: Path, rng: np.random.Generator) -> None:
    example = tuple(torch.from_numpy(_random(form, 2, rng)) for form in inputs)
    batch = torch.export.Dim("batch", min=1, max=spec.max_batch_size)
    with warnings.catch_warnings():
        # PyTorch's exporter warns about its own insides.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            example,
            str(path),
            input_names=[form.name for form in inputs],
            output_names=[OUTPUT_RESIDUAL],
            dynamic_shapes=tuple({0: batch} if form.batched else None for form in inputs),
            opset_version=spec.opset,
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def _measured(
    served: nn.Module, inputs: Sequence[TensorForm], path: Path, spec: ExportSpec, rng: np.random.Generator
) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """Return the output's shape without the batch axis, and a report of the difference from PyTorch for each batch size.

    Raises:
        ContractBroken: a difference is over the tolerance, or a shape differs.
    """
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shape: tuple[int, ...] = ()
    reports = []
    for size in spec.batch_sizes:
        given = {form.name: _random(form, size, rng) for form in inputs}
        with torch.no_grad():
            expected = served(*map(torch.from_numpy, given.values())).numpy()
        got = session.run([OUTPUT_RESIDUAL], given)[0]
        if got.shape != expected.shape:
            raise ContractBroken(f"{spec.name}: the exported network returns shape {got.shape}, PyTorch {expected.shape}")
        shape, difference = expected.shape[1:], np.abs(got - expected)
        worst = float(difference.max())
        if worst > spec.tolerance_levels:
            raise ContractBroken(
                f"{spec.name}: the exported network differs from PyTorch by {worst:.4f} grey levels, "
                f"at most {spec.tolerance_levels} are allowed"
            )
        reports.append(
            {"batch": size, "max_difference_levels": worst, "mean_difference_levels": float(difference.mean())},
        )
    return shape, reports


def _random(form: TensorForm, batch: int, rng: np.random.Generator) -> Array:
    shape = (batch, *form.shape) if form.batched else form.shape
    if form.dtype == "uint8":
        picture: UInt8 = rng.integers(0, 256, shape, dtype=np.uint8)
        return picture
    return rng.normal(0.0, _STATE_SPREAD, shape).astype(form.dtype)


def _batch_axis(form: TensorForm) -> list[str]:
    return [BATCH_AXIS] if form.batched else []


def _with_half_weights(model: Any) -> Any:
    """Return the model with large float32 constants as float16 behind a Cast. Runtimes fold the Cast when they load the file."""
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


def refer_to_weights(model: onnx.ModelProto, content: bytes, file: str) -> onnx.ModelProto:
    """Return the model with each large tensor that the weights file holds too as a reference into that file.

    The digest of the weights file goes into the model's metadata, so the digest of the ONNX file covers the weights.

    Args:
        model: network with half-precision constants. The function changes the model.
        content: bytes of the weights file.
        file: name of the weights file, which must lie in the folder of the ONNX file.
    """
    for tensor in model.graph.initializer:
        data = numpy_helper.to_array(tensor).tobytes()
        offset = content.find(data) if tensor.data_type == TensorProto.FLOAT16 else -1
        if offset >= 0:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": file, "offset": str(offset), "length": str(len(data))}
            tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in entries.items())
    helper.set_model_props(model, {WEIGHTS_DIGEST: hashlib.sha256(content).hexdigest()})
    return model


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without the exporter's notes, which hold source paths of the machine that exported the model."""
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    return model
