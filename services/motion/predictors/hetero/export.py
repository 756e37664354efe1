"""Export of `hetero`: hetero_generator.onnx, hetero_person.onnx, hetero_constants.safetensors and the sheet hetero.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from services.common.errors import InvalidRequest
from services.common.face.landmark_layout import NUM_UPPER
from services.motion.export_spec import Delivery, ExportSpec, admit, measure_parity, write_onnx
from services.motion.predictors.hetero.inputs import SERVED, WINDOW, heard_shape
from services.motion.predictors.hetero.model import CONSTANTS_FILE, GENERATOR, PERSON
from services.motion.predictors.hetero.network import HeteroConfig, HeteroNetwork
from services.motion.train.run_export import open_run
from services.motion.train.run_files import load_network
from services.motion.types import NUM_POINTS
from services.training.run_folder import read_config

NAME: Final = "hetero_motion"
"""Name of the network on the command line."""
SHEET: Final = "hetero"
"""Name of the sheet and of the card's copy, without endings."""
_TOLERANCE: Final = 2e-4
_PARITY_RUNS: Final = 16


def specs(config: HeteroConfig) -> tuple[ExportSpec, ExportSpec]:
    """Return the descriptions of the generator and of the encoders of the person."""
    limits: dict[str, Any] = {"tolerance": _TOLERANCE, "parity_runs": _PARITY_RUNS}
    vector = (1, config.embedding)
    speech = (1, WINDOW, *heard_shape(config.heard))
    generator = ExportSpec(
        name=GENERATOR, inputs={"speech": speech, "reference": vector, "pose": vector}, outputs=("coefficients",), **limits
    )
    shown = {"mouths": (1, None, NUM_POINTS, 3), "pose": (1, NUM_UPPER, 3)}
    person = ExportSpec(name=PERSON, inputs=shown, outputs=("reference", "pose_vector"), **limits)
    return generator, person


def export(run: Path, out: Path) -> list[Path]:
    """Export the networks with their constants, or nothing; return the paths of the files.

    Raises:
        InvalidRequest: see services.motion.train.run_export.open_run; or the generator hears another input than the stage serves.
        ContractBroken: an exported network differs from its source.
    """
    opened = open_run(run, out, name=NAME, constants_file=CONSTANTS_FILE, sheet=SHEET)
    config = TypeAdapter(HeteroConfig).validate_python(read_config(run, NAME)["network"])
    if config.heard != SERVED:
        raise InvalidRequest(
            f"{run}: network.heard is {config.heard!r}, which the stage cannot serve; train with {SERVED!r}", field="run"
        )
    network = HeteroNetwork(config)
    load_network(network, opened.kept)
    described = specs(config)
    with Delivery(out) as delivery:
        paths, parity = [], {}
        for module, spec in zip((network, network.person), described, strict=True):
            paths.append(write_onnx(module, delivery.folder, spec))
            parity[spec.name] = measure_parity(module, paths[-1], spec, spec.examples())
            admit(spec.name, parity[spec.name], spec)
        return opened.deliver(delivery, paths, {"parity": parity, "specs": [asdict(spec) for spec in described]})
