"""Export of `everyone`: everyone_motion.onnx, everyone_motion_constants.safetensors and the sheet everyone_motion.json."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from services.motion.export_spec import ExportSpec
from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.inputs import WINDOW
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.network import EveryoneConfig, EveryoneNetwork
from services.motion.train.expression_export import export_expression
from services.motion.types import ROWS_PER_FRAME

NAME: Final = "everyone_motion"
"""Name of the network on the command line."""
SPEC: Final = ExportSpec(
    name=Path(EveryoneModel.network_file).stem,
    inputs={"content": (1, WINDOW, ROWS_PER_FRAME, NUM_CONTENT)},
    outputs=("expression",),
    parity_runs=32,
)


def export(run: Path, out: Path, spec: ExportSpec = SPEC) -> list[Path]:
    """Export the network with its constants, or nothing; see services.motion.train.expression_export."""
    return export_expression(
        run,
        out,
        spec,
        name=NAME,
        constants_file=EveryoneModel.constants_file,
        make=lambda sizes: EveryoneNetwork(TypeAdapter(EveryoneConfig).validate_python(sizes)),
    )
