"""Digest of all that the numbers of the stages come from: code, networks, libraries, settings and processor.

The stages are not started for the digest, which takes less time than to load one network. Stages of other processes do not tell all
that their numbers come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dubstage
import gateway
import services
from gateway.settings import GatewaySettings
from gateway.stages.interface import STAGE_NAMES
from gateway.stages.opening import settings_of_stage
from services.common.files import file_sha256

_COMPILED: Final = "__pycache__"
_LIBRARY: Final = ".dist-info"
"""Ending of the folder of an installed library, whose name has the version."""


def stages_sha256(settings: GatewaySettings) -> str:
    """Return the digest of code, libraries and stages of an installation, hexadecimal; empty: a part of the stages runs in another
    process. Blocks.

    Raises:
        InvalidRequestError: the stages' settings are wrong.
        OSError: a file cannot be read.
    """
    render = settings_of_stage("render")
    if any(settings.endpoint(name) for name in STAGE_NAMES) or render.triton_options() is not None:
        return ""
    said = [settings.face_model, render.runtime(), render.personalization_device(), *_installed(), *_settings_and_files()]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _installed() -> list[str]:
    """Return the digest of the program, and the versions of all libraries."""
    digest = hashlib.sha256()
    for folder in (*services.__path__, *gateway.__path__, *dubstage.__path__):
        _add_folder(digest, Path(folder))
    entries = [entry for entry in sys.path if os.path.isdir(entry)]
    return [digest.hexdigest(), *sorted(name for entry in entries for name in os.listdir(entry) if name.endswith(_LIBRARY))]


def _settings_and_files() -> list[str]:
    """Return the settings of all stages, and the digests of the files that they name."""
    said = []
    for name in STAGE_NAMES:
        values = settings_of_stage(name).model_dump()
        said.append(json.dumps(values, sort_keys=True, default=str))
        digest = hashlib.sha256()
        for value in values.values():
            if isinstance(value, Path):
                _add_folder(digest, value)
        said.append(digest.hexdigest())
    return said


def _add_folder(digest: hashlib._Hash, folder: Path) -> None:
    """Add names and contents of all files below a folder, in order; of a file, its content."""
    for file in _files(folder):
        digest.update(f"{file.relative_to(folder)}\0{file_sha256(file)}\0".encode())


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for part, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name != _COMPILED)
        yield from (Path(part, name) for name in sorted(names))
