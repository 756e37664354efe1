"""Finished work of a job, kept so that a killed job goes on where it was.

A step (an enrolment, a rendered window) is known by a key: the digest of everything that its result depends on. Its result lies in
the artefact store, under its own digest; the journal is one small file per step, written after its blob and renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy.typing as npt
import structlog

from gateway.pipeline.disk import job_folder
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.errors import ArtefactCorrupt, ArtefactNotFound, InvalidRequest
from services.common.tensor_bytes import NamedArrays

T = TypeVar("T")

_MOST_BYTES: Final = 64 << 10
"""Longest entry that is read."""

_log = structlog.stdlib.get_logger("dubstage.jobs")


def step_key(kind: str, **depends_on: object) -> str:
    """The key of a step: SHA-256 over its kind and all that its result depends on (JSON values), hexadecimal."""
    text = json.dumps({"kind": kind, **depends_on}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The steps of one job that are finished.

    Attributes:
        computed: steps recorded by this run.
        reused: steps found finished by this run.
        redone: steps that an earlier run had finished and whose result cannot be used.

    Args:
        folder: of the journal.
        store: of the results.
        hold: told of each result's blob before its entry is written; raises an error where the job may not go on.
    """

    def __init__(self, folder: Path, store: ArtefactStore, hold: Callable[[ArtefactRef], None] | None = None) -> None:
        self._folder = folder
        self._store = store
        self._hold = hold
        self.computed = 0
        self.reused = 0
        self.redone = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, key: str, decode: Callable[[NamedArrays], T]) -> T | None:
        """The result of a finished step, or None where the step has to be done.

        An entry that is none, one of another store, and a blob that is gone, damaged or holds something else count as not finished.

        Args:
            key: of the step.
            decode: makes the result of the step's arrays; raises ValueError where they are not those of such a step,
                ArtefactNotFound and ArtefactCorrupt where what they name is gone or damaged.
        """
        path = self._folder / key
        if not path.exists():
            return None
        try:
            ref = _ref(path)
            if ref is None:
                raise ValueError("the entry is no reference")
            found = decode(self._store.get_arrays(ref))
        except (ArtefactNotFound, ArtefactCorrupt, InvalidRequest, ValueError) as problem:
            _log.warning("journal_entry_unusable", job=self._folder.parent.name, step=key, problem=str(problem))
            self.redone += 1
            return None
        self.reused += 1
        return found

    def record(self, key: str, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
        """Keep the result of a step.

        Raises:
            StorageFull: no space left; the journal is as it was.
            DubstageError: from `hold`; the journal is as it was.
        """
        ref = self._store.put_arrays(arrays, metadata)
        if self._hold is not None:
            self._hold(ref)
        entry = json.dumps({"uri": ref.uri, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
        partial = self._folder / f".{key}.partial"
        with job_folder(self._folder):
            partial.write_text(entry)
            os.replace(partial, self._folder / key)
        self.computed += 1

    def refs(self) -> Iterator[ArtefactRef]:
        """References of all finished steps' results, in whatever store they lie."""
        return journalled(self._folder)


def journalled(folder: Path) -> Iterator[ArtefactRef]:
    """References in the journal of this folder; entries that are none are left out, and so is a folder that is not there."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        ref = None if path.name.startswith(".") else _ref(path)
        if ref is not None:
            yield ref


def _ref(path: Path) -> ArtefactRef | None:
    try:
        with path.open("rb") as file:
            entry = json.loads(file.read(_MOST_BYTES))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    match entry:
        case {"uri": str(uri), "sha256": str(sha256), "size_bytes": int(size_bytes)} if type(size_bytes) is int and size_bytes >= 0:
            return ArtefactRef(uri, sha256, size_bytes)
    return None
