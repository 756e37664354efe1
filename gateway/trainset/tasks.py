"""The tasks of a build: one a clip, with its shard and with what is said in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.trainset.catalogue import ClipEntry
from gateway.trainset.clip import ClipTask
from gateway.trainset.output_folder import Shards
from gateway.trainset.texts import Spoken, Texts
from services.common.errors import InvalidRequest


class Tasks:
    """The tasks of a build. What is said in a clip is read when the clip's turn comes.

    Films come first: a film takes longer than a recording, and no process should wait for a last film.

    Args:
        folder: folder of the clips.
        output: folder of the training set.
        entries: the clips.
        refuse: called with the file of a clip that has a wrong side file, and the reason.
    """

    def __init__(self, folder: Path, output: Path, entries: Sequence[ClipEntry], refuse: Callable[[str, str], None]) -> None:
        self._entries, self._refuse = entries, refuse
        self._texts, self._shards = Texts(folder), Shards(output)
        self._asked: Counter[tuple[str, str]] = Counter()
        self._found: Counter[tuple[str, str]] = Counter()

    def __iter__(self) -> Iterator[ClipTask]:
        for entry in sorted(self._entries, key=lambda entry: not entry.is_film):
            try:
                spoken = self._texts.of(entry)
            except InvalidRequest as problem:
                self._refuse(entry.file, problem.message)
                continue
            self._count(entry, spoken)
            yield ClipTask(
                file=entry.file,
                name=entry.name,
                shard=self._shards.of(entry.name),
                is_film=entry.is_film,
                source=entry.source,
                speaker=entry.speaker,
                spoken=spoken,
            )

    def notes(self) -> list[str]:
        """Return which side files of the corpus file were found for no clip: then the pattern is wrong."""
        return [
            f"source {source}: no clip has {what}; check the pattern in the corpus file"
            for source, what in self._asked
            if not self._found[source, what]
        ]

    def _count(self, entry: ClipEntry, spoken: Spoken) -> None:
        if entry.rules is None:
            return
        if entry.rules.transcripts:
            self._asked[entry.source, "a transcript"] += 1
            self._found[entry.source, "a transcript"] += bool(spoken.transcript)
        if entry.rules.words:
            self._asked[entry.source, "word times"] += 1
            self._found[entry.source, "word times"] += spoken.words is not None
