"""Export of `everyone`: everyone_motion.onnx, everyone_motion_constants.safetensors and the sheet everyone_motion.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

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
from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.inputs import WINDOW
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.network import EveryoneConfig, EveryoneNetwork
from services.motion.train.basis import check_style_basis
from services.motion.train.run_files import load_network, origin_of, read_best
from services.motion.types import ROWS_PER_FRAME
from services.training.run_folder import read_config

NAME: Final = "everyone_motion"
"""Name of the network on the command line."""
SPEC: Final = ExportSpec(
    name=Path(EveryoneModel.network_file).stem,
    inputs={"content": (1, WINDOW, ROWS_PER_FRAME, NUM_CONTENT)},
    outputs=("expression",),
    parity_runs=32,
)


def export(run: Path, out: Path, spec: ExportSpec = SPEC) -> list[Path]:
    """Export the network with its constants, or nothing.

    Args:
        run: folder of the run.
        out: folder of weights. Its landmark basis must be the basis that the run was trained on.
        spec: description of the network.

    Returns:
        Paths of the files.

    Raises:
        InvalidRequest: the run is not finished, or the folder holds another landmark basis.
        ContractBroken: the exported network differs from its source.
    """
    kept = read_best(run, NAME)
    check_style_basis(kept, out, NAME)
    network = EveryoneNetwork(TypeAdapter(EveryoneConfig).validate_python(read_config(run, NAME)["network"]))
    load_network(network, kept)
    with Delivery(out) as delivery:
        path = write_onnx(network, delivery.folder, spec)
        difference = measure_parity(network, path, spec, spec.examples())
        admit(spec.name, difference, spec)
        constants = delivery.folder / EveryoneModel.constants_file
        sheet = {
            **write_constants(constants, path, kept),
            "training": origin_of(run, NAME, delivery.folder / f"{spec.name}.card.md"),
            "parity": difference,
            "spec": asdict(spec),
            "files": digests([path, constants]),
        }
        write_sheet(delivery.folder / f"{spec.name}.json", sheet)
        return delivery.deliver()
