"""Export of a renderer's run into the files that the stage serves: ONNX, int8, export sheet, model card and weights.

The ONNX file computes in the backend's precision. Its large tensors are the half-precision tensors of the weights file beside it
(ONNX external data), which personalisation reads too, so each weight is stored once. An export that does not agree with PyTorch
fails and leaves no file.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from research.training.network_files import copy_card
from research.training.run_folder import CONFIG
from services.common.array_types import Array, UInt8
from services.common.errors import ContractBrokenError, InvalidRequestError
from services.common.face.crops import BOX_SIZE
from services.common.files import file_sha256, write_whole
from services.render.backends.model_files import (
    BATCH_AXIS,
    INPUT_PICTURES,
    INPUT_STATE,
    OUTPUT_RESIDUAL,
    WEIGHTS_DIGEST,
    WEIGHTS_FOLDER,
    TensorForm,
)
from services.render.networks.unet import UNetTrunk

if TYPE_CHECKING:
    import onnx

_CALIBRATION_STATE_SPREAD: Final = 0.03
"""Standard deviation of the actors' states that the network is calibrated with."""
_SMALL_TENSOR: Final = 512
_STATE_SPREAD: Final = 0.1
"""Standard deviation of random numbers in inputs that are no pictures, such as an actor's state."""
_FILE: Final = "calibration.npy"


def quantise(raw: Path, target: Path, inputs: Sequence[TensorForm], calibration: UInt8) -> None:
    """Write the network with convolutions in int8: static quantisation (QDQ, per channel) with real pictures.

    The last convolution stays in float32. In int8 the steps of its input show as bands on skin: the error of one renderer falls
    from 1.7 to .5 grey levels in the mean, at the same speed.

    Args:
        raw: the network in float32, an ONNX file.
        target: path for the quantised ONNX file.
        inputs: the network's inputs, exactly one of them uint8.
        calibration: uint8 [N, H, W, C], pictures for the uint8 input. All other inputs get random numbers.

    Raises:
        InvalidRequestError: the network has another number of uint8 inputs than one, or the pictures do not fit the input.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    pictures = [form for form in inputs if form.dtype == "uint8"]
    if len(pictures) != 1 or calibration.shape[1:] != pictures[0].shape:
        wanted = {form.name: form.shape for form in pictures}
        raise InvalidRequestError(
            f"calibration pictures have shape {calibration.shape[1:]}, the network's picture inputs are {wanted}: train with this "
            "version of dubstage",
            field="calibration",
        )

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(calibration)
            self._rng = np.random.default_rng(0)

        def get_next(self) -> dict[str, Array] | None:
            picture = next(self._rest, None)
            return None if picture is None else {form.name: self._value(form, picture) for form in inputs}

        def _value(self, form: TensorForm, picture: UInt8) -> Array:
            # Actors' states move the activations, whose range must have room for them.
            value = (
                picture
                if form.dtype == "uint8"
                else self._rng.normal(0.0, _CALIBRATION_STATE_SPREAD, form.shape).astype(form.dtype)
            )
            return value[None]

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type == "Conv"]
        quantization.quantize_static(
            str(prepared),
            str(target),
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=convolutions[-1:],
            per_channel=True,
            # Weights have seven bits: with eight, CPUs without VNNI saturate when they add two products in 16 bits.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


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
    """Return the `inputs` of a RendererExportSpec for a network behind ServedNetwork.

    Args:
        num_channels: channels of the pictures.
    """

    def forms(network: UNetTrunk) -> tuple[TensorForm, ...]:
        return (
            TensorForm(INPUT_PICTURES, "uint8", (BOX_SIZE, BOX_SIZE, num_channels)),
            TensorForm(INPUT_STATE, "float32", (network.state_size,)),
        )

    return forms


@dataclass(frozen=True, kw_only=True, slots=True)
class RendererExportSpec:
    """Export of one network, and the allowed difference of the ONNX file from PyTorch.

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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExportJob:
    """Input of one export.

    Attributes:
        weights: the network's weights (.safetensors); None: the file that comes with dubstage.
        folder: folder for MODEL.onnx, MODEL.export.json and, with `calibration`, MODEL.int8.onnx.
        calibration: uint8 [N, H, W, C], network inputs to calibrate the int8 variant with; None: no int8 variant.
        training: network and configuration of the training run, for the export sheet; None: unknown.
    """

    weights: Path | None
    folder: Path
    calibration: UInt8 | None = None
    training: Mapping[str, Any] | None = None


def export_network(spec: RendererExportSpec, job: ExportJob) -> Path:
    """Export a network, compare the result with PyTorch, and write the files; return the path of the ONNX file.

    Args:
        job: weights file, folder for the results, pictures to calibrate the int8 variant with.

    Raises:
        ModelNotFoundError: the weights file is missing or holds another network.
        InvalidRequestError: the calibration pictures do not fit the network's inputs. Nothing is written.
        ContractBrokenError: a difference is over the tolerance. Nothing is written.
    """
    import onnx

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
        variants = {"float": (f"{spec.name}.onnx", compact.read_bytes())}
        if job.calibration is not None:
            quantised = Path(scratch) / "int8.onnx"
            quantise(raw, quantised, inputs, job.calibration)
            variants["int8"] = f"{spec.name}.int8.onnx", quantised.read_bytes()
    job.folder.mkdir(parents=True, exist_ok=True)
    for file, data in ((spec.weights, content), *variants.values()):
        write_whole(job.folder / file, data)
    files = {variant: {"path": file, "sha256": hashlib.sha256(data).hexdigest()} for variant, (file, data) in variants.items()}
    files["float"]["weights"] = spec.weights
    facts = {
        "name": spec.name,
        "files": files,
        "prior_sha256": file_sha256(weights),
        "opset": spec.opset,
        "max_batch_size": spec.max_batch_size,
        "inputs": {form.name: [form.dtype, [BATCH_AXIS, *form.shape]] for form in inputs},
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


def _write_raw(
    served: nn.Module, inputs: Sequence[TensorForm], spec: RendererExportSpec, path: Path, rng: np.random.Generator
) -> None:
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
            dynamic_shapes=({0: batch},) * len(inputs),
            opset_version=spec.opset,
            external_data=False,
            dynamo=True,
            verbose=False,
        )


def _measured(
    served: nn.Module, inputs: Sequence[TensorForm], path: Path, spec: RendererExportSpec, rng: np.random.Generator
) -> tuple[tuple[int, ...], list[dict[str, Any]]]:
    """Return the output's shape without the batch axis, and a report of the difference from PyTorch for each batch size.

    Raises:
        ContractBrokenError: a difference is over the tolerance, or a shape differs.
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
            raise ContractBrokenError(f"{spec.name}: the exported network returns shape {got.shape}, PyTorch {expected.shape}")
        shape, difference = expected.shape[1:], np.abs(got - expected)
        worst = float(difference.max())
        if worst > spec.tolerance_levels:
            raise ContractBrokenError(
                f"{spec.name}: the exported network differs from PyTorch by {worst:.4f} grey levels, "
                f"at most {spec.tolerance_levels} are allowed"
            )
        reports.append(
            {"batch": size, "max_difference_levels": worst, "mean_difference_levels": float(difference.mean())},
        )
    return shape, reports


def _random(form: TensorForm, batch: int, rng: np.random.Generator) -> Array:
    shape = (batch, *form.shape)
    if form.dtype == "uint8":
        picture: UInt8 = rng.integers(0, 256, shape, dtype=np.uint8)
        return picture
    return rng.normal(0.0, _STATE_SPREAD, shape).astype(form.dtype)


def _with_half_weights(model: Any) -> Any:
    """Return the model with large float32 constants as float16 behind a Cast. Runtimes fold the Cast when they load the file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

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
    import onnx
    from onnx import TensorProto, helper, numpy_helper

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


def write_calibration(run: Path, pictures: UInt8) -> None:
    """Write inputs, uint8 [N, 160, 160, C], into the folder of a run."""
    content = io.BytesIO()
    np.save(content, pictures)
    write_whole(run / _FILE, content.getvalue())


def read_calibration(run: Path) -> UInt8:
    """Return the inputs that a run kept.

    Raises:
        InvalidRequestError: the run did not come to its end.
    """
    if not (run / _FILE).is_file():
        raise InvalidRequestError(
            f"{run} holds a run that is not complete: go on with it by `dubstage train --resume`", field="run"
        )
    pictures: UInt8 = np.load(run / _FILE)
    return pictures


def export_renderer(spec: RendererExportSpec, more_files: Callable[[Path], Sequence[str]], run: Path, folder: Path) -> list[Path]:
    """Export a run: NAME.onnx, NAME.int8.onnx, NAME.export.json, NAME.card.md, and the weights that personalisation needs.

    Args:
        more_files: returns names of further files of the run that the stage serves.
        folder: folder of weights.

    Raises:
        InvalidRequestError: the run is not complete.
        ModelNotFoundError: the run's weights are missing or damaged.
        ContractBrokenError: the ONNX file does not compute what PyTorch computes. Nothing is written.
    """
    training = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    weights = run / spec.weights
    job = ExportJob(weights=weights, folder=folder, calibration=read_calibration(run), training=training)
    network = export_network(spec, job)
    copies = [write_whole(folder / file, (run / file).read_bytes()) for file in (weights.name, *more_files(run))]
    card = copy_card(run, network)
    sheets = [network, network.with_suffix(".int8.onnx"), network.with_suffix(".export.json")]
    return [*sheets, *copies, *([card] if card else [])]
