"""Export of `everybody`: audio_to_expression.onnx, expression_constants.safetensors and the sheet audio_to_expression.json."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.motion.predictors.everybody.inputs import NUM_HEARD, WINDOW
from services.motion.predictors.everybody.model import EverybodyModel
from services.motion.predictors.everybody.network import EverybodyConfig, EverybodyNetwork
from services.motion.train.expression_export import export_expression
from services.motion.types import ROWS_PER_FRAME

NAME: Final = "everybody_motion"
"""Name of the network on the command line."""


def export(run: Path, out: Path) -> list[Path]:
    """Export the network with its constants, or nothing. Arguments and errors: see export_expression."""
    window = (1, WINDOW, ROWS_PER_FRAME, NUM_HEARD)
    return export_expression(
        run,
        out,
        name=NAME,
        model=EverybodyModel,
        inputs={"window": window},
        make=lambda sizes: EverybodyNetwork(EverybodyConfig(**sizes)),
    )
