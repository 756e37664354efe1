"""Export of `everybody`: audio_to_expression.onnx, expression_constants.safetensors and the sheet audio_to_expression.json."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.motion.export_spec import ExportSpec
from services.motion.predictors.everybody.inputs import NUM_HEARD, WINDOW
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.network import EverybodyConfig, EverybodyNetwork
from services.motion.train.expression_export import export_expression
from services.motion.types import ROWS_PER_FRAME

NAME: Final = "everybody_motion"
"""Name of the network on the command line."""
SPEC: Final = ExportSpec(
    name=Path(EverybodyModel.network_file).stem,
    inputs={"window": (1, WINDOW, ROWS_PER_FRAME, NUM_HEARD)},
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
        constants_file=EverybodyModel.constants_file,
        make=lambda sizes: EverybodyNetwork(EverybodyConfig(**sizes)),
    )
