"""What a build has made so far, and the manifest of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.trainset.catalogue import ClipEntry
from gateway.trainset.clip import ClipTask
from gateway.trainset.clip_files import ClipFiles
from gateway.trainset.output_folder import Refusal, write_refused
from gateway.trainset.record import MADE_HERE, ClipRecord, files_of, read_record, recorded_shards
from gateway.trainset.rows import rows_of
from services.training.trainset.manifest import ClipRow, write_manifest

Say = Callable[[str], None]
"""Called with a line for the user."""
_MANIFEST_EVERY_S: Final = 60.0
"""Seconds between two manifests while clips are made: what the manifest of a killed build lacks at most."""


class Made:
    """The clips that are finished, and those that are left out.

    Args:
        output: folder of the training set.
        entries: all clips that may become finished.
        refused: reasons by file, of clips that are left out already.
        say: tells the user what is left out.
        with_lags: whether the manifest has the lags.
    """

    def __init__(
        self, output: Path, entries: Sequence[ClipEntry], refused: Mapping[str, str], say: Say, *, with_lags: bool
    ) -> None:
        self._output, self._entries, self._say, self._with_lags = output, entries, say, with_lags
        self._records: dict[str, ClipRecord] = {}
        self._earlier: dict[str, ClipRecord] | None = None
        self._phones: dict[str, str] = {}
        self._done: set[str] = set()
        self._written = time.monotonic()
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []
        for file, reason in refused.items():
            self._refuse(Refusal(file, reason))

    @property
    def num_done(self) -> int:
        """Number of clips that are finished or left out."""
        return len(self._done)

    def add(self, task: ClipTask, result: ClipRecord | Refusal) -> None:
        """Take over the result of a task."""
        self._done.add(task.file)
        if isinstance(result, Refusal):
            self._refuse(result)
        else:
            self._records[task.file] = result
            self._note_phones(result)
            for name, why in result.left_out.items():
                self._refuse(Refusal(name, why))
        if time.monotonic() - self._written > _MANIFEST_EVERY_S:
            self.write()

    def refuse_unread(self, file: str, reason: str) -> None:
        """Note a clip that is left out before it is read."""
        self._done.add(file)
        self._refuse(Refusal(file, reason))

    def write(self) -> list[ClipRow]:
        """Write the manifest of the finished clips, if there are any, and the list of the others.

        A clip whose turn has not come yet is finished if an earlier build has finished it.
        """
        if self.num_done < len(self._entries) and self._earlier is None:
            self._earlier = self._finished_earlier()
        waiting = {file: record for file, record in (self._earlier or {}).items() if file not in self._done}
        found = rows_of(self._entries, {**waiting, **self._records}, self._phones, with_lags=self._with_lags)
        self.notes = found.notes
        if found.rows:
            write_manifest(self._output, found.rows)
        write_refused(self._output, self.refusals)
        self._written = time.monotonic()
        return found.rows

    def _finished_earlier(self) -> dict[str, ClipRecord]:
        shards = recorded_shards(self._output)
        found: dict[str, ClipRecord] = {}
        for entry in self._entries:
            shard = shards.get(entry.name)
            record = None if shard is None or entry.file in self._done else read_record(self._output, shard, entry.name)
            if record is not None and all(path.is_file() for path in files_of(self._output, record, MADE_HERE)):
                found[entry.file] = record
                self._note_phones(record)
        return found

    def _note_phones(self, record: ClipRecord) -> None:
        for piece in record.pieces:
            self._phones[piece.name] = ClipFiles(self._output, record.shard, piece.name).phones_origin()

    def _refuse(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self._say(f"left out: {refusal.file}: {refusal.reason}")
