"""Export of `everyone`: everyone_motion.onnx, everyone_motion_constants.safetensors and the sheet everyone_motion.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from services.motion.features import NUM_CONTENT
from services.motion.predictors.everyone.inputs import WINDOW
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.network import EveryoneConfig, EveryoneNetwork
from services.motion.train.expression_export import export_expression
from services.motion.types import ROWS_PER_FRAME

NAME: Final = "everyone_motion"
"""Name of the network on the command line."""


def _network(sizes: Mapping[str, Any]) -> EveryoneNetwork:
    return EveryoneNetwork(TypeAdapter(EveryoneConfig).validate_python(sizes))


def export(run: Path, out: Path) -> list[Path]:
    """Export the network with its constants, or nothing. Arguments and errors: see export_expression."""
    content = (1, WINDOW, ROWS_PER_FRAME, NUM_CONTENT)
    return export_expression(run, out, name=NAME, model=EveryoneModel, inputs={"content": content}, make=_network)
