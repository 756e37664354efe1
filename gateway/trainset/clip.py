"""One clip of a training set: tracking, sound, features, lag, and the files. What is finished and still true is kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.media.inspection import inspect_film
from gateway.media.sound import SoundReader
from gateway.stages.interface import Stages
from gateway.trainset.clip_files import ClipFiles, DamagedFileError
from gateway.trainset.film import FEWEST_LAST_FRAMES, tracked
from gateway.trainset.grid import GridTrack, face_width
from gateway.trainset.lag import Lag, measure_lag
from gateway.trainset.listen import SAMPLES_A_FRAME, ClipFeatures, Int16, extract_features, fitted, read_pieces
from gateway.trainset.record import MADE_HERE, PREPARED, ClipRecord, PieceFacts, files_of, forget, read_record, write_record
from gateway.trainset.texts import Spoken
from services.common.errors import NoUsableFootage
from services.common.wire.timeline import MOTION_RATE

LEAST_USABLE: Final = 0.5
"""Least share of frames with a usable mouth. A piece with fewer is left out: it is damaged, or shows another person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTask:
    """A clip to take in.

    Attributes:
        file: path below the folder of the clips, with forward slashes.
        name: the clip's name in the training set.
        shard: the clip's shard.
        is_film: whether the file is a film, otherwise it is a recording.
        source: name of the corpus.
        speaker: name of the person.
        spoken: what is said.
    """

    file: str
    name: str
    shard: str
    is_film: bool
    source: str
    speaker: str
    spoken: Spoken

    @property
    def text(self) -> str:
        """Digest of what the files of sound note besides the sound."""
        told = json.dumps([self.source, self.speaker, self.spoken.transcript, self.spoken.words])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """Digests of the models that make features and lags. `lag` is empty if no lags are measured."""

    audio: str
    lag: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece before its files are written. A recording has no track, and a film may have none."""

    first_frame: int
    samples: Int16
    track: GridTrack | None
    is_whole: bool

    @property
    def frames(self) -> int:
        return len(self.samples) // SAMPLES_A_FRAME

    @property
    def usable_frames(self) -> int:
        return 0 if self.track is None else int(self.track.usable.sum())


class ClipMaker:
    """Makes the files of clips.

    Args:
        stages: the stages.
        networks: digests of their networks.
        folder: folder of the clips.
        output: folder of the training set.
        working: folder for the records of faces while a film is tracked.
    """

    def __init__(self, stages: Stages, networks: Networks, folder: Path, output: Path, working: Path) -> None:
        self._stages, self._networks, self._folder, self._output, self._working = stages, networks, folder, output, working

    async def make(self, task: ClipTask) -> ClipRecord:
        """Make what is missing of a clip, and return its record. One piece is held in memory: about 0.5 GB for a minute of film.

        A changed file is made from the beginning. Changed networks make features and lag again, from the sound in the set.

        Raises:
            MediaUnsupported: the file cannot be read to its end.
            NoUsableFootage: no piece shows a face well, or there is no sound.
            DubstageError: from a stage.
        """
        path = self._folder / task.file
        facts = path.stat()
        old = read_record(self._output, task.shard, task.name)
        if old is not None and (old.size, old.changed_ns) == (facts.st_size, facts.st_mtime_ns):
            sha256 = old.sha256
        else:
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if old is not None:
            if old.sha256 == sha256 and all(file.is_file() for file in files_of(self._output, old, MADE_HERE)):
                try:
                    record = await self._renewed(task, replace(old, size=facts.st_size, changed_ns=facts.st_mtime_ns))
                except DamagedFileError:
                    pass
                else:
                    if record != old:
                        write_record(self._output, task.name, record)
                    return record
            forget(self._output, task.name, old, task.speaker)
        return await self._made(task, sha256, facts)

    async def _made(self, task: ClipTask, sha256: str, facts: os.stat_result) -> ClipRecord:
        kept: list[PieceFacts] = []
        left_out: dict[str, str] = {}
        is_cut = False
        (self._output / "shards" / task.shard).mkdir(parents=True, exist_ok=True)
        number = 0
        async for piece in self._film(task) if task.is_film else self._recording(task):
            name = f"{task.name}+{number}" if number else task.name
            number, is_cut = number + 1, not piece.is_whole
            if task.is_film and (piece.track is None or piece.usable_frames < LEAST_USABLE * piece.frames):
                left_out[name] = f"only {piece.usable_frames} of {piece.frames} frames show a mouth well"
            else:
                kept.append(await self._written(task, name, piece, sha256))
        if not kept:
            raise NoUsableFootage("; ".join(left_out.values()) or "there is no sound in it", subject=task.file)
        record = ClipRecord(
            file=task.file,
            shard=task.shard,
            sha256=sha256,
            size=facts.st_size,
            changed_ns=facts.st_mtime_ns,
            text=task.text,
            audio_networks=self._networks.audio,
            lag_model=self._networks.lag if task.is_film else "",
            has_face=task.is_film,
            is_cut=is_cut,
            pieces=tuple(kept),
            left_out=left_out,
        )
        write_record(self._output, task.name, record)
        return record

    async def _film(self, task: ClipTask) -> AsyncIterator[_Piece]:
        info = inspect_film(self._folder / task.file)
        if not info.audio:
            raise NoUsableFootage("the film has no sound: networks would learn that silence moves the mouth", subject=task.file)
        self._working.mkdir(parents=True, exist_ok=True)
        async with tracked(self._stages, info, self._working / f"{os.getpid()}.faces") as film:
            sound = read_pieces(SoundReader(info.path, origin=info.video.start))
            for first, count in film.pieces():
                samples = fitted(next(sound, np.zeros(0, np.int16)), count)
                yield _Piece(first, samples, film.track(first, count), is_whole=count == film.num_frames)

    async def _recording(self, task: ClipTask) -> AsyncIterator[_Piece]:
        pieces = read_pieces(SoundReader(self._folder / task.file))
        first, current = 0, next(pieces, None)
        while current is not None:
            following = next(pieces, None)
            if first == 0 or len(current) >= FEWEST_LAST_FRAMES * SAMPLES_A_FRAME:
                yield _Piece(first, current, None, is_whole=first == 0 and following is None)
            first, current = first + len(current) // SAMPLES_A_FRAME, following

    async def _written(self, task: ClipTask, name: str, piece: _Piece, sha256: str) -> PieceFacts:
        """Write the files of a piece, and return its facts."""
        files = ClipFiles(self._output, task.shard, name)
        heard = await extract_features(self._stages, piece.samples)
        lag = Lag()
        spoken = _said(task, piece.first_frame, piece.frames, is_cut=not piece.is_whole)
        files.drop(*PREPARED)
        if piece.track is not None:
            if self._networks.lag:
                lag = await measure_lag(self._stages, piece.track.mouth_landmarks, piece.track.usable, heard)
            files.put("track", _arrays(piece.track), {"sha256": sha256})
        files.put("sound", {"samples": piece.samples}, _about_sound(task, spoken, piece.first_frame, sha256))
        files.put("speech", _arrays(heard), self._about_speech(lag))
        return PieceFacts(
            name=name,
            first_frame=piece.first_frame,
            frames=piece.frames,
            usable_frames=piece.usable_frames,
            face_px=0.0 if piece.track is None else face_width(piece.track),
            transcript=spoken.transcript,
            lag_frames=lag.frames,
            lag_confidence=lag.confidence,
        )

    async def _renewed(self, task: ClipTask, record: ClipRecord) -> ClipRecord:
        """Return the record of a clip whose file is the same, after making again what else has changed.

        Raises:
            DamagedFileError: a file of the clip cannot be read.
        """
        told = record.text != task.text
        heard = record.audio_networks != self._networks.audio
        measured = record.has_face and bool(self._networks.lag) and (heard or record.lag_model != self._networks.lag)
        pieces: list[PieceFacts] = []
        for piece in record.pieces:
            files = ClipFiles(self._output, task.shard, piece.name)
            renewed = _told_anew(task, files, piece, record) if told else piece
            if heard or measured:
                renewed = await self._heard_anew(files, renewed, extract=heard, measure=measured)
            pieces.append(renewed)
        return replace(
            record,
            text=task.text,
            audio_networks=self._networks.audio,
            lag_model=self._networks.lag if measured else "" if heard else record.lag_model,
            pieces=tuple(pieces),
        )

    async def _heard_anew(self, files: ClipFiles, piece: PieceFacts, *, extract: bool, measure: bool) -> PieceFacts:
        if extract:
            heard = await extract_features(self._stages, files.get("sound", "samples")["samples"])
        else:
            heard = ClipFeatures(**files.get("speech", *(each.name for each in fields(ClipFeatures))))
        lag = Lag()
        if measure:
            track = files.get("track", "mouth_landmarks", "usable")
            lag = await measure_lag(self._stages, track["mouth_landmarks"], track["usable"], heard)
        files.put("speech", _arrays(heard), self._about_speech(lag))
        return replace(piece, lag_frames=lag.frames, lag_confidence=lag.confidence)

    def _about_speech(self, lag: Lag) -> dict[str, str]:
        return {
            "audio_networks": self._networks.audio,
            "lag_model": self._networks.lag if lag.confidence >= 0 else "",
            "lag_frames": str(lag.frames),
            "lag_confidence": str(lag.confidence),
        }


def _told_anew(task: ClipTask, files: ClipFiles, piece: PieceFacts, record: ClipRecord) -> PieceFacts:
    """Write the sound of a piece with what is said now. Phone labels of other words are removed."""
    spoken = _said(task, piece.first_frame, piece.frames, is_cut=record.is_cut)
    samples = files.get("sound", "samples")
    files.drop("phones")
    files.put("sound", samples, _about_sound(task, spoken, piece.first_frame, record.sha256))
    return replace(piece, transcript=spoken.transcript)


def _said(task: ClipTask, first_frame: int, frames: int, *, is_cut: bool) -> Spoken:
    if not is_cut:
        return task.spoken
    return task.spoken.part(float(first_frame / MOTION_RATE), float((first_frame + frames) / MOTION_RATE))


def _about_sound(task: ClipTask, spoken: Spoken, first_frame: int, sha256: str) -> dict[str, str]:
    words = {} if spoken.words is None else {"words": json.dumps(spoken.words, ensure_ascii=False)}
    return {
        "source": task.source,
        "speaker": task.speaker,
        "transcript": spoken.transcript,
        "sha256": sha256,
        "first_frame": str(first_frame),
        **words,
    }


def _arrays(record: GridTrack | ClipFeatures) -> dict[str, npt.NDArray[Any]]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
