"""Export of predictors of expression whose network gives coefficients for a window of speech: network, constants and sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from services.motion.export_spec import Delivery, ExportSpec, admit, measure_parity, write_onnx
from services.motion.expression_model import ExpressionModel
from services.motion.train.run_export import open_run
from services.motion.train.run_files import load_network
from services.training.run_folder import read_config


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
        run: folder of the run.
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        name: name of the network on the command line.
        model: what serves the network; gives the names of the files.
        inputs: shape of each input by name.
        make: returns the network of the part `network` of the run's configuration, with any weights.

    Returns:
        Paths of the files.

    Raises:
        InvalidRequest: the run is not finished, or the folder holds another landmark basis.
        ContractBroken: the exported network differs from its source.
    """
    spec = ExportSpec(name=Path(model.network_file).stem, inputs=inputs, outputs=("expression",), parity_runs=32)
    opened = open_run(run, out, name=name, constants_file=model.constants_file, sheet=spec.name)
    network = make(read_config(run, name)["network"])
    load_network(network, opened.kept)
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        difference = measure_parity(network, path, spec, spec.examples())
        admit(spec.name, difference, spec)
        return opened.deliver(delivery, [path], {"parity": difference, "spec": asdict(spec)})
