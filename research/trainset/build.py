"""Build a whole training set: every clip of a folder, in several processes, the manifest, and the preparations of the stages.

Clips are held out for validation: whole speakers where there are enough, and single clips where there are few speakers.

A task makes one clip. The task states the clip's shard and the words that are said in the clip. Each process that makes clips has
stages of its own and reports its errors. Rows of the manifest come from the listed and the finished clips.

The stages that a training set needs, in this process, and digests of their networks.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

import cv2
from google.protobuf.message import Message
from threadpoolctl import threadpool_limits

from dubstage.client.rpcs import Download, Rpc, Stream, Unary, Upload
from gateway.stages.interface import stage_of
from gateway.stages.local import LocalStages, compose_stages
from gateway.stages.opening import weights_of
from research.training.trainset import LAG_ZERO, ClipRow, read_manifest, speaker_hours, write_manifest
from research.trainset.catalogue import BY_SPEAKER, TRAIN, VALIDATION, ClipEntry, list_clips, read_corpus
from research.trainset.clip import ClipMaker, ClipNetworks, ClipTask, lags_by_clip
from research.trainset.output_folder import (
    BUILT,
    ClipFiles,
    ClipRecord,
    Refusal,
    Shards,
    files_of,
    in_output,
    open_output,
    read_record,
    recorded_shards,
    write_incomplete,
    write_refused,
)
from research.trainset.texts import ClipText, Texts
from research.trainset.workers import WorkerDiedError, in_processes
from services.common.errors import DubstageError, InvalidRequestError, ModelNotFoundError, NoUsableFootageError, RequestError
from services.common.wire.timeline import MOTION_RATE

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_NETWORKS: Final = {"audio": "*.onnx", "motion": "lag.safetensors"}
"""Models that make parts of a training set: patterns of file names in the stage's folder of weights."""
_HELD_OUT_SHARE: Final = 0.15
_FEWEST_SPEAKERS: Final = 3
_KINDS: Final[tuple[tuple[str, Callable[[ClipRow], bool]], ...]] = (
    ("pixels to learn from", lambda row: row.has_face and row.has_pixels),
    ("a face", lambda row: row.has_face),
    ("sound", lambda _: True),
)
"""Requirements of trainings on clips, from the rarest kind to the most common."""
Say = Callable[[str], None]
"""Called with a line for the user."""
_MANIFEST_EVERY_S: Final = 60.0
"""Seconds between two manifests while clips are made: what the manifest of a killed build lacks at most."""
Progress = Callable[[str, int, int], None]
"""Called with the name of a step, and the numbers of clips done and of all clips."""


class StagesOnDemand:
    """`Stages` in this process; a stage is loaded at its first call.

    A set of recordings needs no face stage, and a finished set needs no stage at all.
    """

    face_model: Final = ""
    call_deadline_s: Final = None

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._loaded: dict[str, LocalStages] = {}

    async def aclose(self) -> None:
        """End the stages."""
        await self._stack.aclose()

    async def unary(self, rpc: Unary[Q, R], request: Q) -> R:
        """Send one request and return the one response."""
        return await (await self._stage(rpc)).unary(rpc, request)

    async def upload(self, rpc: Upload[Q, R], requests: AsyncIterator[Q]) -> R:
        """Send many requests and return the one response."""
        return await (await self._stage(rpc)).upload(rpc, requests)

    async def download(self, rpc: Download[Q, R], request: Q) -> AsyncIterator[R]:
        """Send one request and yield many responses."""
        async for reply in (await self._stage(rpc)).download(rpc, request):
            yield reply

    async def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        async for reply in (await self._stage(rpc)).stream(rpc, requests):
            yield reply

    async def _stage(self, rpc: Rpc[Q, R]) -> LocalStages:
        name = stage_of(rpc)
        if name not in self._loaded:
            # Several processes work side by side, so a computation takes one thread.
            stages = LocalStages(compose_stages(names=(name,), compute_threads=1))
            self._loaded[name] = await self._stack.enter_async_context(stages)
        return self._loaded[name]


def networks_digest(stage: str) -> str:
    """Return a digest of a stage's models that make parts of a training set. Equal files give equal digests.

    Args:
        stage: `audio` or `motion`.

    Raises:
        ModelNotFoundError: the folder of weights that the stage's settings name holds no such model.
        InvalidRequestError: a setting is wrong.
    """
    folder = weights_of(stage)
    digest = hashlib.sha256()
    files = sorted(folder.glob(_NETWORKS[stage]))
    if not files:
        raise ModelNotFoundError(
            f"{folder} holds no {_NETWORKS[stage]}: check DUBSTAGE_{stage.upper()}_WEIGHTS", resource=str(folder)
        )
    for path in files:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def held_out(speakers: Collection[str], *, spared: Collection[str] = ()) -> set[str]:
    """Return the speakers held out for validation: about one in seven, none of fewer than three. Equal names give equal results.

    Args:
        speakers: names of all speakers.
        spared: speakers that are not held out. They count as speakers.
    """
    if len(speakers) < _FEWEST_SPEAKERS:
        return set()
    ranked = sorted(set(speakers) - set(spared), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ranked[: math.ceil(_HELD_OUT_SHARE * len(speakers))])


def split_by_speaker(entries: Sequence[ClipEntry]) -> dict[str, str]:
    """Return the split of each clip, by file: what is stated, otherwise `val` for all clips of a speaker who is held out.

    Speakers of videos are chosen apart from speakers of recordings alone, so that clips with a face are held out too. A speaker
    with a clip that is stated to be of the training split is not held out, nor is a speaker of more than half of the clips.
    """
    stated = {entry.speaker for entry in entries if entry.split == TRAIN}
    filmed = {entry.speaker for entry in entries if entry.is_video}
    held: set[str] = set()
    for group in (
        [entry.speaker for entry in entries if entry.split == BY_SPEAKER and entry.speaker in filmed],
        [entry.speaker for entry in entries if entry.split == BY_SPEAKER and entry.speaker not in filmed],
    ):
        counts = Counter(group)
        spared = stated | {speaker for speaker, count in counts.items() if 2 * count > len(group)}
        held |= held_out(counts, spared=spared)
    return {entry.file: entry.split or (VALIDATION if entry.speaker in held else TRAIN) for entry in entries}


def with_validation(rows: Iterable[ClipRow], movable: Callable[[ClipRow], bool]) -> tuple[list[ClipRow], list[str]]:
    """Return the rows with at least one clip of each kind (pixels, face, sound) held out, and what a user should know of that.

    If a kind has no clip of the split `val`, the last clip of the largest speaker is held out.

    Args:
        movable: whether nothing states the split of a row.
    """
    divided, notes = list(rows), []
    reported: list[list[int]] = []
    for kind, is_of in _KINDS:
        chosen = [index for index, row in enumerate(divided) if is_of(row) and row.split in (TRAIN, VALIDATION)]
        if not chosen or any(divided[index].split == VALIDATION for index in chosen):
            continue
        free = [index for index in chosen if movable(divided[index])] if len(chosen) > 1 else []
        if not free:
            if chosen in reported:
                continue
            reported.append(chosen)
            why = "there is only one" if len(chosen) == 1 else f"all are stated to be {TRAIN}"
            notes.append(
                f"no clip with {kind} is held out, because {why}: "
                f"add clips of split {VALIDATION}, since trainings choose their best step on them"
            )
            continue
        counts = Counter(divided[index].speaker for index in free)
        largest = min(counts, key=lambda speaker: (-counts[speaker], speaker))
        last = max((index for index in free if divided[index].speaker == largest), key=lambda index: divided[index].name)
        divided[last] = replace(divided[last], split=VALIDATION)
        notes.append(
            f"{divided[last].name} is held out: there are too few speakers with {kind} to hold out a whole one; figures on a known "
            "speaker look better than figures on new ones"
        )
    return divided, notes


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the manifest, and notes on the clips that are held out."""

    rows: list[ClipRow]
    notes: list[str]


def rows_of(entries: Sequence[ClipEntry], records: Mapping[str, ClipRecord], phones: Mapping[str, str], *, with_lags: bool) -> Rows:
    """Return the rows of the finished clips, in the order of the files.

    Args:
        records: finished clips, by file.
        phones: origin of phone labels, by name of the piece.
        with_lags: whether the rows have the lags of the records. Otherwise all lags are 0 and count as not measured.
    """
    splits = split_by_speaker(entries)
    rows = [
        row
        for entry in entries
        if entry.file in records
        for row in _rows_of_clip(entry, records[entry.file], splits[entry.file], phones)
    ]
    if not with_lags:
        rows = [replace(row, lag_frames=0, lag_confidence=-1.0) for row in rows]
    by_speaker = {entry.file for entry in entries if entry.split == BY_SPEAKER}
    rows, notes = with_validation(rows, lambda row: row.file in by_speaker)
    hours, lags = speaker_hours(rows), lags_by_clip(rows)
    return Rows(
        [replace(row, speaker_hours=hours[row.speaker], lag_frames=lags.get(row.name, 0) if row.has_face else 0) for row in rows],
        notes,
    )


def _rows_of_clip(entry: ClipEntry, record: ClipRecord, split: str, phones: Mapping[str, str]) -> list[ClipRow]:
    return [
        ClipRow(
            name=piece.name,
            shard=record.shard,
            file=entry.file,
            sha256=record.sha256,
            source=entry.source,
            speaker=entry.speaker,
            split=split,
            licence=entry.licence,
            transcript=piece.transcript,
            has_face=record.has_face,
            has_pixels=entry.has_pixels,
            frames=piece.frames,
            usable_frames=piece.usable_frames,
            face_px=piece.face_px,
            seconds=round(float(piece.frames / MOTION_RATE), 3),
            lag_frames=piece.lag_frames,
            lag_confidence=piece.lag_confidence,
            lag_zero=LAG_ZERO,
            phones=phones.get(piece.name, ""),
            weight=entry.weight,
            narrow=entry.narrow,
            language=entry.language,
            first_frame=piece.first_frame,
        )
        for piece in record.pieces
    ]


class FinishedClips:
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
        manifest = rows_of(self._entries, {**waiting, **self._records}, self._phones, with_lags=self._with_lags)
        self.notes = manifest.notes
        if manifest.rows:
            write_manifest(self._output, manifest.rows)
        write_refused(self._output, self.refusals)
        self._written = time.monotonic()
        return manifest.rows

    def _finished_earlier(self) -> dict[str, ClipRecord]:
        shards = recorded_shards(self._output)
        records: dict[str, ClipRecord] = {}
        for entry in self._entries:
            shard = shards.get(entry.name)
            record = None if shard is None or entry.file in self._done else read_record(self._output, shard, entry.name)
            if record is not None and all(path.is_file() for path in files_of(self._output, record, BUILT)):
                records[entry.file] = record
                self._note_phones(record)
        return records

    def _note_phones(self, record: ClipRecord) -> None:
        for piece in record.pieces:
            self._phones[piece.name] = ClipFiles(self._output, record.shard, piece.name).phones_origin()

    def _refuse(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self._say(f"left out: {refusal.file}: {refusal.reason}")


class BuildTasks:
    """The tasks of a build. What is said in a clip is read when the clip's turn comes.

    Videos come first: a video takes longer than a recording, and no process should wait for a last video.

    Args:
        output: folder of the training set.
        refuse: called with the file of a clip that has a wrong side file, and the reason.
    """

    def __init__(self, folder: Path, output: Path, entries: Sequence[ClipEntry], refuse: Callable[[str, str], None]) -> None:
        self._entries, self._refuse = entries, refuse
        self._texts, self._shards = Texts(folder), Shards(output)
        self._asked: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[tuple[str, str]] = Counter()

    def __iter__(self) -> Iterator[ClipTask]:
        for entry in sorted(self._entries, key=lambda entry: not entry.is_video):
            try:
                spoken = self._texts.of(entry)
            except InvalidRequestError as problem:
                self._refuse(entry.file, problem.message)
                continue
            self._count(entry, spoken)
            yield ClipTask(
                file=entry.file,
                name=entry.name,
                shard=self._shards.of(entry.name),
                is_video=entry.is_video,
                source=entry.source,
                speaker=entry.speaker,
                spoken=spoken,
            )

    def notes(self) -> list[str]:
        """Return which side files of the corpus file were found for no clip: then the pattern is wrong."""
        return [
            f"source {source}: no clip has {what}; check the pattern in the corpus file"
            for source, what in self._asked
            if not self._counts[source, what]
        ]

    def _count(self, entry: ClipEntry, spoken: ClipText) -> None:
        if entry.rules is None:
            return
        if entry.rules.transcripts:
            self._asked[entry.source, "a transcript"] += 1
            self._counts[entry.source, "a transcript"] += bool(spoken.transcript)
        if entry.rules.words:
            self._asked[entry.source, "word times"] += 1
            self._counts[entry.source, "word times"] += spoken.words is not None


@contextmanager
def clip_worker(
    networks: ClipNetworks, folder: Path, output: Path, working: Path
) -> Iterator[Callable[[ClipTask], ClipRecord | Refusal]]:
    """Open the stages, and yield the function that makes a clip.

    The function returns a refusal for a clip that cannot be used, whatever the reason. It raises DubstageError if no further clip
    could be made either: the disk is full, or a network is missing.
    """
    cv2.setNumThreads(1)
    with threadpool_limits(1), asyncio.Runner() as runner:
        stages = StagesOnDemand()
        maker = ClipMaker(stages, networks, folder, output, working)
        try:
            yield lambda task: runner.run(_clip_or_refusal(maker, task, output))
        finally:
            runner.run(stages.aclose())


async def _clip_or_refusal(maker: ClipMaker, task: ClipTask, output: Path) -> ClipRecord | Refusal:
    try:
        with in_output(output):
            return await maker.make(task)
    except (RequestError, NoUsableFootageError) as problem:
        return Refusal(task.file, problem.message)
    except DubstageError:
        raise
    except OSError as problem:
        return Refusal(task.file, f"it cannot be read or written: {problem}")
    except Exception as problem:
        where = traceback.extract_tb(problem.__traceback__)[-1]
        return Refusal(task.file, f"this should not happen ({where.name}): {type(problem).__name__}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """Sources and settings of a training set.

    Attributes:
        output: folder of the training set.
        splits: splits to take in.
        corpus: corpus file; None: there is none.
        processes: processes that make clips; 0: this process.
        with_lags: whether lags are measured.
    """

    folder: Path
    output: Path
    splits: frozenset[str] = frozenset({"train", "val"})
    corpus: Path | None = None
    processes: int = 1
    with_lags: bool = True


def build(order: BuildOrder, progress: Progress, say: Say) -> tuple[list[ClipRow], list[Refusal]]:
    """Build or complete a training set, and return the rows of its manifest and what was left out.

    Finished clips are kept, so the build can be stopped at any time. A clip that cannot be used is left out, with a reason.

    Raises:
        InvalidRequestError: the folder holds no clips, the corpus file is wrong, or the set cannot be written.
        NoUsableFootageError: no clip can be used.
        ModelNotFoundError: a stage's folder of weights lacks a network.
        StorageFullError: no space is left for the set.
    """
    corpus = None if order.corpus is None else read_corpus(order.corpus, order.folder)
    listing = list_clips(order.folder, order.splits, corpus)
    networks = ClipNetworks(audio=networks_digest("audio"), lag=networks_digest("motion") if order.with_lags else "")
    with open_output(order.output) as working, in_output(order.output):
        finished = FinishedClips(order.output, listing.entries, listing.refused, say, with_lags=order.with_lags)
        tasks = BuildTasks(order.folder, order.output, listing.entries, finished.refuse_unread)
        start = partial(clip_worker, networks, order.folder, order.output, working)
        progress("clips", 0, len(listing.entries))
        try:
            for task, result in in_processes(iter(tasks), order.processes, start):
                finished.add(task, Refusal(task.file, str(result)) if isinstance(result, WorkerDiedError) else result)
                progress("clips", finished.num_done, len(listing.entries))
        finally:
            # Finished clips can be used, even if an error or Ctrl-C ends the build.
            rows = finished.write()
        if not rows:
            reason = finished.refusals[0]
            raise NoUsableFootageError(
                f"{order.folder}: none of the {len(listing.entries)} clips can be used; {reason.file}: {reason.reason}",
                subject=str(order.folder),
            )
        for note in (*finished.notes, *tasks.notes()):
            say(note)
        return rows, finished.refusals


class PreparationStep(Protocol):
    """A preparation, as `research.training.networks.Preparation` describes it. That module imports PyTorch."""

    @property
    def name(self) -> str:
        """Name of the preparation."""
        ...

    @property
    def prepare(self) -> Callable[[Path, Path, int, Callable[[int, int], None]], Mapping[str, str]]:
        """Completes a set: (set, clips, processes, progress) -> reasons by clip for what is missing."""
        ...


def prepare(order: BuildOrder, steps: Sequence[PreparationStep], progress: Progress, say: Say) -> list[ClipRow]:
    """Run the preparations over a set, note the origin of the phone labels in the manifest, and return the manifest's rows.

    An error of one preparation does not keep the others from their work.

    Args:
        order: what the set was made from.
        steps: the preparations in their order.
        progress: shows a preparation's progress.
        say: tells the user what a preparation could not make.

    Raises:
        DubstageError: a preparation ended with this error.
        StorageFullError: no space is left for the set.
    """
    missing: dict[str, Mapping[str, str]] = {}
    failed: DubstageError | None = None
    with open_output(order.output), in_output(order.output):
        for step in steps:
            try:
                missing[step.name] = step.prepare(order.output, order.folder, max(1, order.processes), _shown(step.name, progress))
            except DubstageError as error:
                failed = failed or error
                say(f"{step.name}: {error.message}")
                continue
            for clip, reason in missing[step.name].items():
                say(f"{step.name}: {clip}: {reason}")
        rows = [
            replace(row, phones=ClipFiles(order.output, row.shard, row.name).phones_origin()) for row in read_manifest(order.output)
        ]
        write_manifest(order.output, rows)
        write_incomplete(order.output, missing)
    if failed is not None:
        raise failed
    return rows


def _shown(name: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)
