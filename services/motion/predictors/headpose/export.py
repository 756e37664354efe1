"""Export of `headpose`: audio_to_head_motion.onnx, head_motion_constants.safetensors and the sheet audio_to_head_motion.json.

The exported network makes one step of the LSTM per call; the LSTM's state is an input and an output. The expression is not
exported, because the mouth comes from the speech map. Parity of PyTorch and ONNX Runtime is measured over a sequence of steps.
Weights are stored as float16 and computed with as float32.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from services.common.errors import InvalidRequest
from services.motion.export_spec import Delivery, ExportSpec, admit, write_onnx
from services.motion.predictors.headpose.model import HeadposeModel
from services.motion.predictors.headpose.network import NUM_HEARD, Head, HeadposeConfig, HeadposeNetwork
from services.motion.train.run_export import open_run
from services.motion.train.run_files import load_network
from services.motion.types import ROWS_PER_FRAME
from services.training.run_folder import read_config

NAME: Final = "headpose_motion"
"""Name of the network on the command line."""
_SMALL: Final = 256
"""Arrays with fewer numbers stay float32."""


def spec_of(config: HeadposeConfig) -> ExportSpec:
    """Return the description of a network."""
    state = (1, config.hidden)
    return ExportSpec(
        name=Path(HeadposeModel.network_file).stem,
        inputs={"window": (1, config.window, ROWS_PER_FRAME, NUM_HEARD), "h": state, "c": state},
        outputs=("pose", "next_h", "next_c"),
        parity_runs=100,
    )


def store_as_half(path: Path) -> None:
    """Rewrite large float32 initialisers as float16, each with a cast behind the initialiser."""
    model = onnx.load(str(path))
    casts = []
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    onnx.save(model, str(path))


def measure_sequence(network: HeadposeNetwork, path: Path, spec: ExportSpec) -> float:
    """Return the largest difference between PyTorch over a whole sequence and ONNX Runtime step by step, on random rows."""
    config = network.config
    rng = np.random.default_rng(spec.seed)
    rows = rng.standard_normal((spec.parity_runs + config.window - 1, ROWS_PER_FRAME, NUM_HEARD)).astype(np.float32)
    zero = np.zeros((1, config.hidden), np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows)[None], torch.from_numpy(zero), torch.from_numpy(zero))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    h, c, largest = zero, zero, 0.0
    for step in range(spec.parity_runs):
        window = rows[None, step : step + config.window]
        pose, h, c = session.run(list(spec.outputs), {"window": window, "h": h, "c": c})
        largest = max(largest, float(np.abs(pose[0, 0] - expected.pose[0, step].numpy()).max()))
    return largest


def export(run: Path, out: Path, spec: ExportSpec | None = None) -> list[Path]:
    """Export the network with its constants, or nothing.

    Args:
        run: folder of the run.
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        spec: description of the network. None: see spec_of.

    Returns:
        Paths of the files.

    Raises:
        InvalidRequest: the run is not finished or is an ablation, or the folder holds another landmark basis.
        ContractBroken: the exported network differs from its source.
    """
    sheet = Path(HeadposeModel.network_file).stem
    opened = open_run(run, out, name=NAME, constants_file=HeadposeModel.constants_file, sheet=sheet)
    held = read_config(run, NAME)
    config = HeadposeConfig(**held["network"])
    if held["heard"] != "both" or config.ahead != HeadposeConfig().ahead:
        raise InvalidRequest(
            f"{run} holds an ablation, which the stage cannot serve: train with heard = 'both' and network.ahead = "
            f"{HeadposeConfig().ahead}",
            field="run",
        )
    spec = spec or spec_of(config)
    network = HeadposeNetwork(config)
    load_network(network, opened.kept)
    _round_as_stored(network)
    with Delivery(out) as delivery:
        path = write_onnx(Head(network), delivery.folder, spec)
        store_as_half(path)
        onnx.checker.check_model(str(path))
        difference = measure_sequence(network, path, spec)
        admit(spec.name, difference, spec)
        measured = {"parity": difference, "spec": asdict(spec)}
        return opened.deliver(delivery, [path], measured, past=config.past, ahead=config.ahead, hidden=config.hidden)


@torch.no_grad()
def _round_as_stored(network: HeadposeNetwork) -> None:
    """Give the weights the rounding that storage as float16 gives them."""
    for values in network.parameters():
        if values.numel() >= _SMALL:
            values.copy_(values.half().float())
