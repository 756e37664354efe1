"""Export of `headpose`: audio_to_head_motion.onnx, head_motion_constants.safetensors and the report audio_to_head_motion.json.

The exported network makes one step of the LSTM per call; the LSTM's state is an input and an output. Parity of PyTorch and ONNX
Runtime is measured over a sequence of steps. Weights are stored as float16 and computed with as float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from services.motion.export_spec import Delivery, ExportSpec, admit, write_constants, write_onnx
from services.motion.predictors.headpose.model import HeadposeModel
from services.motion.predictors.headpose.network import NUM_HEARD, HeadposeConfig, HeadposeNetwork
from services.motion.types import ROWS_PER_FRAME

RUNS: Final = {"run": "build/motion/head_motion"}
"""Default folder of the training run."""
MAX_BYTES: Final = 700_000
_SMALL: Final = 256
"""Arrays with fewer numbers stay float32."""


def spec_of(config: HeadposeConfig) -> ExportSpec:
    """Return the description of a network."""
    state = (1, config.hidden)
    return ExportSpec(
        name=Path(HeadposeModel.network_file).stem,
        inputs={"window": (1, config.window, ROWS_PER_FRAME, NUM_HEARD), "h": state, "c": state},
        outputs=("expression", "pose", "next_h", "next_c"),
        max_bytes=MAX_BYTES,
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
        expression, pose, h, c = session.run(list(spec.outputs), {"window": window, "h": h, "c": c})
        for got, wanted in ((expression, expected.expression), (pose, expected.pose)):
            largest = max(largest, float(np.abs(got[0, 0] - wanted[0, step].numpy()).max()))
    return largest


def export(runs: Mapping[str, Path], out: Path, spec: ExportSpec | None = None) -> dict[str, Any]:
    """Export the network with its constants, or nothing.

    Args:
        runs: folder of the training run `run`.
        out: folder that gets the files.
        spec: description of the network. None: see spec_of.

    Returns:
        The report.

    Raises:
        RuntimeError: the exported network differs from its source, or its file is too large.
    """
    kept = torch.load(runs["run"] / "best.pt", weights_only=False)
    config = HeadposeConfig(**kept["config"]["network"])
    spec = spec or spec_of(config)
    network = HeadposeNetwork(config)
    network.load_state_dict({name: _as_stored(value) for name, value in kept["state"].items()})
    network.eval()
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        store_as_half(path)
        onnx.checker.check_model(str(path))
        difference = measure_sequence(network, path, spec)
        admit(path, difference, spec)
        facts = {"past": config.past, "ahead": config.ahead, "hidden": config.hidden}
        report = {
            **write_constants(delivery.folder / HeadposeModel.constants_file, path, kept, kept["constants"], **facts),
            "training": {name: kept[name] for name in ("config", "step", "scores")},
            "parity": difference,
            "spec": asdict(spec),
        }
        return delivery.deliver(f"{spec.name}.json", report)


def _as_stored(values: torch.Tensor) -> torch.Tensor:
    """Return weights with the rounding that storage as float16 gives them."""
    return values.half().float() if values.numel() >= _SMALL else values
