"""Export of `everyone`: everyone_motion.onnx, everyone_motion_constants.safetensors and the sheet everyone_motion.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from services.common.errors import InvalidRequest
from services.motion.predictors.everyone.inputs import SERVED, WINDOW, num_channels
from services.motion.predictors.everyone.model import EveryoneModel
from services.motion.predictors.everyone.network import EveryoneConfig, EveryoneNetwork
from services.motion.train.expression_export import export_expression
from services.training.run_folder import read_config

NAME: Final = "everyone_motion"
"""Name of the network on the command line."""


def _network(sizes: Mapping[str, Any]) -> EveryoneNetwork:
    return EveryoneNetwork(TypeAdapter(EveryoneConfig).validate_python(sizes))


def export(run: Path, out: Path) -> list[Path]:
    """Export the network with its constants, or nothing. Arguments and errors: see export_expression.

    Raises:
        InvalidRequest: the network of the run hears another input than the stage serves.
    """
    heard = read_config(run, NAME)["network"]["heard"]
    if heard != SERVED:
        raise InvalidRequest(f"{run}: network.heard is {heard!r}, which the stage cannot serve; train with {SERVED!r}", field="run")
    speech = (1, WINDOW, num_channels(SERVED))
    return export_expression(run, out, name=NAME, model=EveryoneModel, inputs={"speech": speech}, make=_network)
