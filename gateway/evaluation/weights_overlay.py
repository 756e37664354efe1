"""Networks that replace the networks of an installation for a while, for example the networks of an ablation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.stages.interface import STAGE_NAMES
from gateway.stages.weights import weights_of
from services.common.errors import InvalidRequest


@contextmanager
def overlaid(folder: Path | None) -> Iterator[None]:
    """Let stages that are started inside the block serve the files of a folder in place of their own files of the same names.

    Args:
        folder: as `dubstage export` writes it: one folder a stage, such as FOLDER/render. None: nothing changes.

    Raises:
        InvalidRequest: the folder holds no folder of a stage with networks.
    """
    stages = [name for name in STAGE_NAMES if folder is not None and (folder / name).is_dir()]
    if folder is None:
        yield
        return
    if not stages:
        raise InvalidRequest(
            f"{folder} holds none of the folders {', '.join(STAGE_NAMES)}: give a folder that `dubstage export` wrote",
            field="weights",
        )
    before = {name: os.environ.get(_variable(name)) for name in stages}
    with tempfile.TemporaryDirectory(prefix="dubstage-weights-") as together:
        try:
            for name in stages:
                merged = _merged(weights_of(name), folder / name, Path(together) / name)
                os.environ[_variable(name)] = str(merged)
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(_variable(name), None)
                else:
                    os.environ[_variable(name)] = value


def _merged(own: Path, other: Path, target: Path) -> Path:
    """Make a folder of links to the files of both folders; where a name is in both, to the other's."""
    target.mkdir()
    files = {path.name: path for path in (*own.iterdir(), *other.iterdir()) if path.is_file()}
    for name, path in files.items():
        (target / name).symlink_to(path.resolve())
    return target


def _variable(stage: str) -> str:
    return f"DUBSTAGE_{stage.upper()}_WEIGHTS"
