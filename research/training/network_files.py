"""Writing of the files that services/common/store/exported_networks.py reads: a network, its description, and its card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.training.run_folder import CARD, CONFIG
from services.common.files import write_whole
from services.common.store.exported_networks import card_of


def write_exported_network(
    path: Path, content: bytes, *, run: Path, weights: Path | None = None, spec: Any, parity: Any
) -> Sequence[Path]:
    """Write a network's ONNX file, its description and its card, each file whole or not at all; return their paths.

    Args:
        path: the ONNX file. The description gets the same name with the ending `.json`, the card with the ending `.card.md`.
        content: bytes of the ONNX file.
        run: folder of the training run, which holds config.json, and CARD.md if the run is complete.
        weights: the run's file that the network was exported from, whose digest goes into the description; None: not named.
        spec: what was exported, a dataclass.
        parity: how closely the export follows its source, a dataclass.
    """
    description: dict[str, Any] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "training": json.loads((run / CONFIG).read_text(encoding="utf-8")),
        "export": dataclasses.asdict(spec),
        "parity": dataclasses.asdict(parity),
    }
    if weights is not None:
        description["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [write_whole(path, content)]
    card = copy_card(run, path)
    if card is not None:
        description["card"] = card.name
        written.append(card)
    text = json.dumps(description, indent=1) + "\n"
    return [*written, write_whole(path.with_suffix(".json"), text.encode())]


def copy_card(run: Path, network: Path) -> Path | None:
    """Copy the card of a training run to the folder of an exported network, and return its path there.

    A card of an earlier export is removed if the run has no card, since that card tells about another network.

    Args:
        network: the ONNX file.

    Returns:
        Path of the copy; None: the run has no card, because the run is not complete.
    """
    card, copy = run / CARD, card_of(network)
    if not card.is_file():
        copy.unlink(missing_ok=True)
        return None
    return write_whole(copy, card.read_bytes())
