"""Exported models with an operator that no runtime knows: the digests fit, and no backend can read the network."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import onnx

from services.render.backends.model_files import WEIGHTS_FOLDER


def weights_with_unreadable(folder: Path, *unreadable: str, others: tuple[str, ...] = ("ugc",)) -> Path:
    """Copies of committed models: `unreadable` with an unknown operator in both files, `others` as they are."""
    folder.mkdir(parents=True)
    for name in (*unreadable, *others):
        for file in WEIGHTS_FOLDER.glob(f"{name}.*"):
            shutil.copy(file, folder)
    for name in unreadable:
        sheet = folder / f"{name}.export.json"
        facts = json.loads(sheet.read_text(encoding="utf-8"))
        for variant in facts["files"].values():
            file = folder / variant["path"]
            model = onnx.load(file, load_external_data=False)
            model.graph.node[0].op_type = "NoSuchOperator"
            onnx.save(model, file)
            variant["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        sheet.write_text(json.dumps(facts), encoding="utf-8")
    return folder
