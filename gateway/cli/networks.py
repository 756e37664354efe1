"""The networks that the stages of this machine serve, for `dubstage doctor`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final, NamedTuple

from gateway.stages.opening import runtime_of_renderers, weights_of
from services.common.errors import ModelNotFound
from services.common.store.exported_networks import cards_in, networks_in

NETWORK_STAGES: Final = ("audio", "motion", "texture", "render")
"""Stages that serve networks from a folder of weights."""
_SERVES_WHAT_IS_THERE: Final = "render"
"""Stage that serves the networks of its folder, whichever they are. The other stages need all their networks."""


class NetworkRow(NamedTuple):
    """A line of the report: a name, and what was found."""

    name: str
    found: str


def network_rows(stage: str) -> list[NetworkRow]:
    """Return the folder of a stage's networks, what computes renderers, the digest of each network, and the cards of training runs.

    Args:
        stage: one of NETWORK_STAGES.

    Raises:
        ModelNotFound: a file or the folder is missing. The message names it, and the setting of the folder.
        ArtefactCorrupt: a file is damaged. The message names the file.
        InvalidRequest: the stage's settings are wrong.
    """
    folder = weights_of(stage)
    networks = networks_in(folder)
    present = {network.path.name for network in networks}
    missing = sorted({path.name for path in _shipped(stage).glob("*.onnx")} - present)
    if missing and folder.is_dir() and stage != _SERVES_WHAT_IS_THERE:
        raise ModelNotFound(
            f"{folder / missing[0]}: no such file; DUBSTAGE_{stage.upper()}_WEIGHTS needs a folder that `dubstage export` wrote",
            resource=missing[0],
        )
    rows = [NetworkRow(f"{stage} networks", str(folder))]
    if stage == _SERVES_WHAT_IS_THERE:
        rows.append(NetworkRow("  computed by", runtime_of_renderers()))
    for network in networks:
        card = f", card {network.card}" if network.card else ""
        rows.append(NetworkRow(f"  {network.path.stem}", network.digest + card))
    shown = {network.card for network in networks}
    rows += [NetworkRow("  card", str(card)) for card in cards_in(folder) if card not in shown]
    return rows


def _shipped(stage: str) -> Path:
    return Path(str(importlib.import_module(f"services.{stage}").__file__)).with_name("weights")
