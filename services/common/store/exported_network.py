"""An exported network's two files: the ONNX file, and beside it a JSON file that describes the ONNX file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write_exported_network(path: Path, content: bytes, *, run: Path, spec: DataclassInstance, parity: DataclassInstance) -> None:
    """Write a network's ONNX file and its description.

    Args:
        path: the ONNX file; the description gets the same name with the ending `.json`.
        content: bytes of the ONNX file.
        run: folder of the training run, which holds config.json.
        spec: what was exported.
        parity: how closely the export follows its source.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    description = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "training": json.loads((run / "config.json").read_text()),
        "export": dataclasses.asdict(spec),
        "parity": dataclasses.asdict(parity),
    }
    path.with_suffix(".json").write_text(json.dumps(description, indent=1) + "\n")
