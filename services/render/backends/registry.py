"""The exported models of a folder: what export.py wrote, checked against its digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.errors import ArtefactCorrupt, ModelNotFound
from services.render.types import Precision

WEIGHTS_FOLDER: Final = Path(__file__).parents[1] / "weights"
"""Models that come with dubstage."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An exported network.

    Attributes:
        name: what a request calls it.
        path: of the ONNX file.
        sha256: of that file.
        state_size: length of an actor's state.
        prior_sha256: of the weights that it was exported from; an actor's state fits these only.
    """

    name: str
    path: Path
    sha256: str
    state_size: int
    prior_sha256: str


def read_models(folder: Path, precision: Precision) -> dict[str, ModelFile]:
    """All models of a folder by name, in the file variant that a precision needs.

    Raises:
        ModelNotFound: there is none, or not in this precision.
        ArtefactCorrupt: a file is not the one that was exported.
    """
    variant = "int8" if precision is Precision.INT8 else "float"
    models: dict[str, ModelFile] = {}
    for sheet in sorted(folder.glob("*.export.json")):
        facts = json.loads(sheet.read_text(encoding="utf-8"))
        file = facts["files"].get(variant)
        if file is None:
            raise ModelNotFound(
                f"model {facts['name']!r} was not exported in {precision}: python -m services.render.export --int8",
                resource=str(facts["name"]),
            )
        path = folder / str(file["path"])
        if not path.is_file():
            raise ModelNotFound(f"model {facts['name']!r}: no file {path}", resource=str(facts["name"]))
        digest = file_sha256(path)
        if digest != file["sha256"]:
            raise ArtefactCorrupt(f"{path} is damaged: sha256 {file['sha256']} expected, {digest} found", resource=str(path))
        models[facts["name"]] = ModelFile(facts["name"], path, digest, int(facts["state_size"]), str(facts["prior_sha256"]))
    if not models:
        raise ModelNotFound(f"no exported model in {folder}", resource=str(folder))
    return models


def file_sha256(path: Path) -> str:
    """Digest of a small file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
