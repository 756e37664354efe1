"""Export of predictors of expression whose network gives coefficients for a window of speech: network, constants and sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from services.motion.export_spec import (
    Delivery,
    ExportSpec,
    admit,
    digests,
    measure_parity,
    write_constants,
    write_onnx,
    write_sheet,
)
from services.motion.train.basis import check_style_basis
from services.motion.train.run_files import load_network, origin_of, read_best
from services.training.run_folder import read_config


def export_expression(
    run: Path, out: Path, spec: ExportSpec, *, name: str, constants_file: str, make: Callable[[Mapping[str, Any]], nn.Module]
) -> list[Path]:
    """Export a network with its constants, or nothing.

    Args:
        run: folder of the run.
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        spec: description of the network.
        name: name of the network on the command line.
        constants_file: name of the file of constants.
        make: returns the network of the part `network` of the run's configuration, with any weights.

    Returns:
        Paths of the files.

    Raises:
        InvalidRequest: the run is not finished, or the folder holds another landmark basis.
        ContractBroken: the exported network differs from its source.
    """
    kept = read_best(run, name)
    check_style_basis(kept, out, name)
    network = make(read_config(run, name)["network"])
    load_network(network, kept)
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        difference = measure_parity(network, path, spec, spec.examples())
        admit(spec.name, difference, spec)
        constants = delivery.folder / constants_file
        sheet = {
            **write_constants(constants, path, kept),
            "training": origin_of(run, name, delivery.folder / f"{spec.name}.card.md"),
            "parity": difference,
            "spec": asdict(spec),
            "files": digests([path, constants]),
        }
        write_sheet(delivery.folder / f"{spec.name}.json", sheet)
        return delivery.deliver()
