"""Tests of the files of an export: network, description and card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from research.training.network_files import copy_card
from services.common.store.exported_networks import cards_in, networks_in
from tests.unit.common.store.exported import exported_network, run_folder


def test_export_has_description_and_card(tmp_path: Path) -> None:
    """An export is the network its description and its card."""
    weights = exported_network(tmp_path / "weights", run_folder(tmp_path / "run")).parent
    assert sorted(path.name for path in weights.iterdir()) == ["same.card.md", "same.json", "same.onnx"]
    sheet = json.loads((weights / "same.json").read_text())
    assert sheet["sha256"] == hashlib.sha256((weights / "same.onnx").read_bytes()).hexdigest()
    assert sheet["training"]["config"] == {"width": 3}
    assert sheet["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert sheet["card"] == "same.card.md"
    (network,) = networks_in(weights)
    assert (network.path, network.card, network.digest) == (weights / "same.onnx", weights / "same.card.md", sheet["sha256"][:12])
    assert cards_in(weights) == [weights / "same.card.md"]


def test_earlier_card_is_removed(tmp_path: Path) -> None:
    """The card of an earlier export does not stay."""
    run = run_folder(tmp_path / "run")
    network = exported_network(tmp_path / "weights", run)
    (run / "CARD.md").unlink()
    assert copy_card(run, network) is None
    assert networks_in(network)[0].card is None
