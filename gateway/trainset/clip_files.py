"""The files of a clip in a training set, written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from services.common.array_types import Array
from services.common.store.tensor_bytes import encode_arrays
from services.training.trainset.layout import FORMAT_VERSION, Part, part_path


class DamagedFileError(Exception):
    """A file of the set cannot be read."""


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The files of one clip.

    Attributes:
        folder: folder of the training set.
        shard: the clip's shard.
        name: the clip's name.
    """

    folder: Path
    shard: str
    name: str

    def path(self, part: Part) -> Path:
        """Return the path of a file."""
        return part_path(self.folder, self.shard, self.name, part)

    def put(self, part: Part, arrays: Mapping[str, Array], about: Mapping[str, str]) -> None:
        """Write a file with its arrays and metadata.

        Raises:
            OSError: the file cannot be written. Nothing of it is left, so that a full disk has room for the manifest.
        """
        path = self.path(part)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(encode_arrays(arrays, {"format": FORMAT_VERSION, **about}))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def get(self, part: Part, *names: str) -> dict[str, Any]:
        """Return arrays of a file.

        Raises:
            DamagedFileError: the file is missing or damaged, or lacks an array.
        """
        try:
            with safe_open(self.path(part), "numpy") as file:
                return {name: np.asarray(file.get_tensor(name)) for name in names}
        except (OSError, SafetensorError) as problem:
            raise DamagedFileError(str(problem)) from problem

    def drop(self, *parts: Part) -> None:
        """Remove files."""
        for part in parts:
            self.path(part).unlink(missing_ok=True)

    def phones_origin(self) -> str:
        """Return the origin of the clip's phone labels; empty: there are none."""
        path = self.path("phones")
        if not path.is_file():
            return ""
        try:
            with safe_open(path, "numpy") as file:
                return str((file.metadata() or {}).get("origin", ""))
        except (OSError, SafetensorError):
            return ""
