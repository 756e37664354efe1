"""Reading of training sets: rows by what they are for, and the arrays of clips, with bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, Generic, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from services.common.array_types import Array
from services.common.errors import InvalidRequest
from services.training.trainset.layout import Part, part_path
from services.training.trainset.manifest import ClipRow, read_manifest

CACHE_BYTES: Final = 1 << 30
"""Memory that a trainer keeps of the clips that it has read, by default."""

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class BoundedCache(Generic[KeyT, ValueT]):
    """Values by key; the least recently used are dropped when all together are too large. May be used from several threads.

    Args:
        make: returns the value of a key.
        size: returns the bytes of a value.
        max_bytes: most bytes of all values together. The value that was made last always stays.
    """

    def __init__(self, make: Callable[[KeyT], ValueT], size: Callable[[ValueT], int], max_bytes: int = CACHE_BYTES) -> None:
        self._make, self._size, self._max_bytes = make, size, max_bytes
        self._held: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __getitem__(self, key: KeyT) -> ValueT:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
        value = self._make(key)
        with self._lock:
            if key not in self._held:
                self._held[key] = value, self._size(value)
                self._bytes += self._held[key][1]
            while self._bytes > self._max_bytes and len(self._held) > 1:
                _, (_, dropped) = self._held.popitem(last=False)
                self._bytes -= dropped
        return value


class TrainSet:
    """A training set on disk.

    Args:
        folder: folder of the training set.

    Raises:
        InvalidRequest: the folder holds no manifest, or the manifest is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = tuple(read_manifest(folder))

    def of(self, split: str, *, face: bool = False, pixels: bool = False, phones: bool = False) -> list[ClipRow]:
        """Return the rows of a split in the order of the manifest.

        Args:
            split: the split.
            face: only clips with a track.
            pixels: only clips with a track whose pixels may be learned from.
            phones: only clips with phone labels.

        Raises:
            InvalidRequest: there is no such clip. The message says what the set lacks.
        """
        found = [
            row
            for row in self.rows
            if row.split == split
            and (row.has_face or not (face or pixels))
            and (row.has_pixels or not pixels)
            and (bool(row.phones) or not phones)
        ]
        if not found:
            wants = [
                name
                for name, wanted in (("a face", face or pixels), ("pixels to learn from", pixels), ("phones", phones))
                if wanted
            ]
            raise InvalidRequest(
                f"{self.folder}: no clip of split {split!r}{' with ' + ' and '.join(wants) if wants else ''}; "
                "add such clips to the folder of clips, and complete the set with `dubstage trainset`",
                field="data",
            )
        return found

    def arrays(self, row: ClipRow, part: Part, names: Sequence[str], rows: slice | None = None) -> dict[str, Array]:
        """Return some arrays of a clip. Other arrays of the file are not read.

        Args:
            row: the clip.
            part: file of the clip.
            names: names of the arrays.
            rows: first and last row of the arrays to read, both inside the arrays; None: all rows.

        Raises:
            InvalidRequest: the file is missing, damaged, or lacks an array. The message names the file.
        """
        path = part_path(self.folder, row.shard, row.name, part)
        try:
            with safe_open(path, "numpy") as file:
                return {name: np.asarray(file.get_tensor(name) if rows is None else file.get_slice(name)[rows]) for name in names}
        except (OSError, SafetensorError) as problem:
            raise InvalidRequest(
                f"{path}: {problem}; make the clip again: delete the file and call `dubstage trainset` again", field="data"
            ) from problem


def by_speaker(rows: Iterable[ClipRow]) -> dict[str, list[ClipRow]]:
    """Return the rows of each speaker, with speakers in the order of their names."""
    groups: dict[str, list[ClipRow]] = {}
    for row in rows:
        groups.setdefault(row.speaker, []).append(row)
    return dict(sorted(groups.items()))
