"""Finished work of a job, kept so that a killed job goes on where it was.

A step (the first pass, an enrolment, a rendered window) is known by a key: the digest of everything that its result depends on. Its
result lies in the artefact store; the journal is one small file a step, written after its blob and renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gateway.pipeline.disk import job_folder
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ArtefactCorrupt, ArtefactNotFound
from services.common.tensor_bytes import NamedArrays


def step_key(kind: str, **depends_on: object) -> str:
    """The key of a step: SHA-256 over its kind and all that its result depends on (JSON values), hexadecimal."""
    text = json.dumps({"kind": kind, **depends_on}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The steps of one job that are finished."""

    def __init__(self, folder: Path, store: ArtefactStore) -> None:
        self._folder = folder
        self._store = store
        self.computed = 0
        """Steps recorded by this run."""
        self.reused = 0
        """Steps found finished by this run."""
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> NamedArrays | None:
        """The result of a finished step, or None. A blob that is gone or damaged counts as not finished."""
        ref = self._ref(self._folder / key)
        if ref is None:
            return None
        try:
            arrays = self._store.get_arrays(ref)
        except (ArtefactNotFound, ArtefactCorrupt):
            return None
        self.reused += 1
        return arrays

    def record(self, key: str, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
        """Keep the result of a step.

        Raises:
            StorageFull: no space left; the journal is as it was.
        """
        ref = self._store.put_arrays(arrays, metadata)
        entry = json.dumps({"uri": ref.uri, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
        partial = self._folder / f".{key}.partial"
        with job_folder(self._folder):
            partial.write_text(entry)
            os.replace(partial, self._folder / key)
        self.computed += 1

    def refs(self) -> Iterator[ArtefactRef]:
        """References of all finished steps' results."""
        for path in sorted(self._folder.iterdir()):
            ref = None if path.name.startswith(".") else self._ref(path)
            if ref is not None:
                yield ref

    def _ref(self, path: Path) -> ArtefactRef | None:
        try:
            entry = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return ArtefactRef(entry["uri"], entry["sha256"], entry["size_bytes"])
