"""Files of exported networks: the ONNX file, a JSON file that describes the ONNX file, and the card of the training run.

gzip may have compressed the ONNX file (`.onnx.gz`).

A description is a JSON file of an export. It records the SHA-256 of NAME.onnx in NAME.json (`sha256`), or of several files
(`files`: name of the file, or of its variant -> `sha256` and perhaps `path`). A variant whose tensors lie in a weights file names
that file (`weights`), whose SHA-256 is `prior_sha256`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.common.errors import ArtefactCorruptError, ModelNotFoundError
from services.common.files import file_sha256

CARD_ENDING: Final = ".card.md"
"""NAME.card.md beside NAME.onnx is the card of the training run that the network came from."""
REMEDY: Final = "export the network into this folder again (`dubstage export`), or copy the file from its source again"


def card_of(network: Path) -> Path:
    """Return the path of the card that belongs to an ONNX file. There may be no such file."""
    return network.with_name(f"{network.stem}{CARD_ENDING}")


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """An exported network.

    Attributes:
        path: the ONNX file.
        sha256: digest of the file, hexadecimal.
        card: the card of the training run beside the file; None: there is no card of this name.
    """

    path: Path
    sha256: str
    card: Path | None

    @property
    def digest(self) -> str:
        """First 12 digits of the SHA-256: the version that stages report."""
        return self.sha256[:12]


def read_network(path: Path) -> NetworkFile:
    """Return the digest and the card of a network, and compare the file with the descriptions in its folder.

    Raises:
        ModelNotFoundError, ArtefactCorruptError: see `checked_sha256`.
    """
    digest, card = checked_sha256(path), card_of(path)
    return NetworkFile(path, digest, card if card.is_file() else None)


def checked_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of weights, hexadecimal, and compare it with the descriptions in the file's folder.

    A file that no description names is not compared.

    Raises:
        ModelNotFoundError: there is no such file.
        ArtefactCorruptError: the file or a description is damaged. The message names the file.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"{path}: no such file; {REMEDY}", resource=str(path))
    digest = file_sha256(path)
    recorded = _recorded(path.parent).get(path.name, {})
    if recorded and digest not in recorded:
        listed = ", ".join(f"{recorded_sha256[:12]} in {sheet}" for recorded_sha256, sheet in recorded.items())
        raise ArtefactCorruptError(
            f"{path} is damaged, or belongs to another export: its SHA-256 begins with {digest[:12]}, not with {listed}; {REMEDY}",
            resource=str(path),
        )
    return digest


def is_described(path: Path) -> bool:
    """Return whether a description in the folder records the digest of a file.

    Raises:
        ArtefactCorruptError: a description is damaged.
    """
    return path.name in _recorded(path.parent)


def networks_in(folder: Path) -> list[NetworkFile]:
    """Return the networks of a folder of weights in the order of their names. Every file that a description names is compared.

    Args:
        folder: the folder, or one ONNX file.

    Raises:
        ModelNotFoundError: there is no such folder, the folder holds no network, or a file that a description names is missing.
        ArtefactCorruptError: a file or a description is damaged. The message names the file.
    """
    if folder.is_file():
        return [read_network(folder)]
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder}: no such folder; {REMEDY}", resource=str(folder))
    named = {folder / name for name in _recorded(folder)}
    networks = sorted(path for path in {*folder.iterdir(), *named} if path.name.endswith((".onnx", ".onnx.gz")))
    if not networks:
        raise ModelNotFoundError(f"{folder} holds no network (*.onnx, *.onnx.gz); {REMEDY}", resource=str(folder))
    for path in sorted(named.difference(networks)):
        checked_sha256(path)
    return [read_network(path) for path in networks]


def cards_in(folder: Path) -> list[Path]:
    """Return the cards of training runs in a folder of weights. Networks that were trained together have one card."""
    return sorted((folder.parent if folder.is_file() else folder).glob(f"*{CARD_ENDING}"))


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    """Return by name of a file: recorded digests, each with the name of the description.

    An export that replaces one of several networks leaves the others' descriptions as they are, so a file may have several digests.
    """
    recorded: dict[str, dict[str, str]] = {}
    for sheet in sorted(folder.glob("*.json")):
        try:
            for name, digest in _digests(sheet.stem, json.loads(sheet.read_text(encoding="utf-8"))):
                recorded.setdefault(name, {})[digest] = sheet.name
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as problem:
            raise ArtefactCorruptError(
                f"{sheet} is damaged: it is no description of an export ({problem}); {REMEDY}", resource=str(sheet)
            ) from problem
    return recorded


def _digests(stem: str, facts: Any) -> Iterator[tuple[str, str]]:
    if "sha256" in facts:
        yield f"{stem}.onnx", str(facts["sha256"])
    for name, entry in facts.get("files", {}).items():
        yield str(entry.get("path", name)), str(entry["sha256"])
        if "weights" in entry:
            yield str(entry["weights"]), str(facts["prior_sha256"])
