"""Make one clip of a training set: tracking, sound, features, lag, and files. Finished files that still hold are kept.

Tracks of any frame rate are put on the motion grid of 25 frames/s. Faces and sound (samples at 16 kHz) are read in pieces of a
minute. The motion stage measures the lag between sound and picture: of one clip alone, and of short clips by all clips of the
speaker.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soxr

from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.face_choice import FaceChoice, choose_face
from gateway.dub.analyse.face_records import read_index
from gateway.dub.analyse.footage import analyse_footage
from gateway.dub.state.records import FACE_RECORD, RecordFile
from gateway.media.inspection import inspect_video
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from research.training.trainset import ClipRow
from research.trainset.output_folder import (
    BUILT,
    PREPARED,
    ClipFiles,
    ClipRecord,
    DamagedFileError,
    PieceFacts,
    files_of,
    forget,
    in_output,
    read_record,
    write_record,
)
from research.trainset.texts import ClipText
from services.common.array_types import Bool, Float32, Float64, Int64, UInt8
from services.common.errors import NoUsableFootageError
from services.common.face.crops import head_template
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.files import file_sha256
from services.common.wire.convert import from_tensor
from services.common.wire.timeline import MOTION_RATE

_STEP_S: Final = float(1 / MOTION_RATE)
_SAME_MOMENT_S: Final = 1e-6
LONGEST_GAP_S: Final = 2.5 * _STEP_S
"""Grid frames between two readings further apart than this are not interpolated."""
_EARS: Final = (234, 454)
"""Landmarks in front of both ears: their distance is the width of the face."""
SAMPLE_RATE_HZ: Final = 16_000
SAMPLES_A_FRAME: Final = int(SAMPLE_RATE_HZ / MOTION_RATE)
PIECE_FRAMES: Final = int(60 * MOTION_RATE)
"""Longest piece of a video or recording that becomes a clip, grid frames: a minute. The pictures of a minute take 115 MB, and a
forced alignment of more loses its way."""
FULL_SCALE: Final = 32767
_CHUNK: Final = 1 << 16
Int16 = npt.NDArray[np.int16]
LEAST_CONFIDENCE: Final = 0.25
"""Least confidence of a clip whose lag counts (docs/models/lag.md)."""
LONG_FRAMES: Final = 200
"""Usable frames from which a confident clip's own lag counts: eight seconds."""
FEWEST_LAST_FRAMES: Final = 25
"""Fewest frames of the last of several pieces. A shorter rest is left out."""
LEAST_USABLE: Final = 0.5
"""Least share of frames with a usable mouth. A piece with fewer is left out: it is damaged, or shows another person."""


@dataclass(frozen=True, slots=True)
class GridTrack:
    """One face on the motion grid; frame n at n / 25 s. Rows without a face are zero (scale 1, rotation the identity).

    Attributes:
        landmarks: float32 [T, 478, 3], frame pixels.
        scale, rotation, translation: float64 [T], [T, 3, 3], [T, 3]: head pose.
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T]: the mouth is seen well.
        boxes: uint8 [T, 160, 160, 3], RGB: the render box of the nearest frame.
    """

    landmarks: Float32
    scale: Float64
    rotation: Float64
    translation: Float64
    mouth_landmarks: Float32
    usable: Bool
    boxes: UInt8


def on_grid(records: npt.NDArray[Any], seconds: Float64, num_frames: int, first_frame: int = 0) -> GridTrack:
    """Return the track of one face on the motion grid.

    Values are interpolated linearly in time. Rotations are means of the matrices, made orthogonal. At 25 frames/s, values are
    copied.

    Args:
        records: FACE_RECORDs of one face in the order of their frames, at least one.
        seconds: float64 [frames of the video], presentation times from the first frame.
        num_frames: T.
        first_frame: number of the first grid frame.
    """
    times = seconds[records["frame"]]
    grid = np.arange(first_frame, first_frame + num_frames) * _STEP_S
    right = np.clip(np.searchsorted(times, grid - _SAME_MOMENT_S), 0, len(times) - 1)
    exact = np.abs(times[right] - grid) <= _SAME_MOMENT_S
    left = np.where(exact, right, np.maximum(right - 1, 0))
    gap = times[right] - times[left]
    inside = exact | ((times[left] <= grid) & (grid <= times[right]) & (gap > 0) & (gap <= LONGEST_GAP_S))
    weight = np.where(gap > 0, (grid - times[left]) / np.where(gap > 0, gap, 1.0), 0.0)
    nearest = np.where(weight > 0.5, right, left)
    seen = records["reason"] == common_pb2.FRAME_REASON_DUBBED

    def between(name: str) -> npt.NDArray[Any]:
        values = records[name]
        share = weight.reshape(-1, *[1] * (values.ndim - 1))
        mixed = np.where(share == 0.0, values[left], (1.0 - share) * values[left] + share * values[right])
        mixed[~inside] = 0
        return np.asarray(mixed, dtype=values.dtype)

    scale, rotation = between("scale"), between("rotation")
    scale[~inside], rotation[~inside] = 1.0, np.eye(3)
    mixed = inside & (weight > 0.0)
    u, _, vt = np.linalg.svd(rotation[mixed])
    rotation[mixed] = u @ vt
    boxes = records["pixels"][nearest]
    boxes[~inside] = 0
    return GridTrack(
        landmarks=between("landmarks").reshape(-1, NUM_LANDMARKS, 3),
        scale=scale,
        rotation=rotation,
        translation=between("translation"),
        mouth_landmarks=between("mouth").reshape(-1, NUM_MOUTH_AREA, 3),
        usable=inside & seen[left] & seen[right],
        boxes=boxes,
    )


def face_width(track: GridTrack) -> float:
    """Return the median width of the face over usable frames, pixels of the footage. 185 px is the resolution of the render box."""
    template = head_template()
    width = math.dist(template[_EARS[0]].tolist(), template[_EARS[1]].tolist())
    return round(float(np.median(track.scale[track.usable])) * width, 1)


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """Features of T frames of the motion grid.

    Attributes:
        mel: float32 [T, 4, 80].
        mfcc: float32 [T, 4, 40].
        posteriorgram: float32 [T, 4, 40].
        identity_removed: float32 [T, 4, 20].
        speech_probability: float32 [T].
        speech_states: float32 [T, 192].
        speech_states_live: float32 [T, 192].
    """

    mel: Float32
    mfcc: Float32
    posteriorgram: Float32
    identity_removed: Float32
    speech_probability: Float32
    speech_states: Float32
    speech_states_live: Float32


def read_pieces(sound: SoundReader) -> Iterator[Int16]:
    """Yield a sound as int16 mono at 16 kHz in pieces of `PIECE_FRAMES` grid frames; the last piece is shorter.

    The last frame is rounded, with silence after the end. One piece is held in memory.

    Raises:
        MediaUnsupportedError: the sound cannot be decoded.
    """
    size = PIECE_FRAMES * SAMPLES_A_FRAME
    held: list[Int16] = []
    count = 0
    for samples in _resampled(sound):
        held.append(samples)
        count += len(samples)
        while count >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if round(count / SAMPLES_A_FRAME):
        yield fitted_to_grid(np.concatenate(held), round(count / SAMPLES_A_FRAME))


def fitted_to_grid(samples: Int16, num_frames: int) -> Int16:
    """Return the samples of the first grid frames, with silence after the end."""
    wanted = num_frames * SAMPLES_A_FRAME
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


def _resampled(sound: SoundReader) -> Iterator[Int16]:
    stream = soxr.ResampleStream(sound.info.sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="VHQ")
    for chunk in sound:
        yield _as_int16(stream.resample_chunk(chunk.samples.mean(axis=1, dtype=np.float32)))
    yield _as_int16(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _as_int16(samples: Float32) -> Int16:
    return np.round(np.clip(samples, -1.0, 1.0) * FULL_SCALE).astype(np.int16)


async def extract_features(stages: Stages, samples: Int16) -> ClipFeatures:
    """Return the features of int16 samples at 16 kHz, a whole number of grid frames.

    Raises:
        DubstageError: from the audio stage.
    """
    num_frames = len(samples) // SAMPLES_A_FRAME
    scaled = samples.astype(np.float32) / np.float32(FULL_SCALE)
    requests = audio_client.extract_features.requests(
        sample_rate_hz=SAMPLE_RATE_HZ, timeline=MOTION_RATE, kinds=audio_client.KINDS, num_frames=num_frames
    )
    sent = requests.of_async(audio_client.pieces(scaled, _CHUNK))
    blocks = [reply.block async for reply in stages.stream(rpcs.audio.EXTRACT_FEATURES, sent)]

    def joined(name: str, shape: tuple[int, ...]) -> Float32:
        parts = [from_tensor(getattr(block, name), name, dtype=np.float32, shape=(block.num_frames, *shape)) for block in blocks]
        return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)

    return ClipFeatures(
        joined("mel", (4, 80)),
        joined("mfcc", (4, 40)),
        joined("posteriorgram", (4, 40)),
        joined("identity_removed", (4, 20)),
        joined("speech_probability", ()),
        joined("speech_states", (192,)),
        joined("speech_states_live", (192,)),
    )


@dataclass(frozen=True, slots=True)
class ClipLag:
    """Answer of EstimateLag for one clip, frames of 40 ms; confidence -1: not measured."""

    frames: int = 0
    confidence: float = -1.0


async def measure_lag(stages: Stages, mouth_landmarks: Float32, usable: Bool, features: ClipFeatures) -> ClipLag:
    """Return the lag of a clip. A clip of too few usable frames, of a mouth that never opens, or of hardly any speech has none.

    Args:
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T].
        features: features of the same T frames.

    Raises:
        DubstageError: from the motion stage.
    """
    arrays = {"mel": features.mel, "posteriorgram": features.posteriorgram, "speech_states": features.speech_states}
    request = motion_client.estimate_lag.request(
        features=audio_client.feature_block(arrays, features.speech_probability), mouth_landmarks=mouth_landmarks, usable=usable
    )
    try:
        reply = await stages.unary(rpcs.motion.ESTIMATE_LAG, request)
    except NoUsableFootageError:
        return ClipLag()
    return ClipLag(reply.lag_frames, round(reply.confidence, 4))


def lags_by_clip(rows: Iterable[ClipRow]) -> dict[str, int]:
    """Return the lag to take out of each clip, frames, by the name of the clip.

    One speaker's clips mostly come from one recording chain, and the lag of three seconds alone is uncertain: a short clip has the
    median over the speaker's confident clips. A long confident clip has a lag of its own, because the chain may have been another.
    Clips of speakers without a confident clip are left out.

    Args:
        rows: rows with the lag and the confidence that were measured on each clip alone.
    """
    rows = tuple(rows)
    confident: dict[str, list[int]] = {}
    for row in rows:
        if row.lag_confidence >= LEAST_CONFIDENCE:
            confident.setdefault(row.speaker, []).append(row.lag_frames)
    common = {speaker: statistics.median_low(lags) for speaker, lags in confident.items()}
    return {row.name: row.lag_frames if _stands_alone(row) else common[row.speaker] for row in rows if row.speaker in common}


def _stands_alone(row: ClipRow) -> bool:
    return row.lag_confidence >= LEAST_CONFIDENCE and row.usable_frames >= LONG_FRAMES


class LargestFace:
    """The largest face of a video whose records lie on disk.

    Args:
        faces: FACE_RECORDs of the video.
        rows: int64 [frames of the video], row of the face's record in each frame; -1: no face.
        seconds: float64 [frames of the video], times from the first frame.
        num_frames: length of the video, grid frames.
    """

    def __init__(self, faces: RecordFile, rows: Int64, seconds: Float64, num_frames: int) -> None:
        self._faces, self._rows, self._seconds = faces, rows, seconds
        self.num_frames = num_frames

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield first frame and number of frames of each piece."""
        for first in range(0, self.num_frames, PIECE_FRAMES):
            count = min(PIECE_FRAMES, self.num_frames - first)
            if first == 0 or count >= FEWEST_LAST_FRAMES:
                yield first, count

    def track(self, first: int, count: int) -> GridTrack | None:
        """Return the track of a piece; None: the piece shows no face. The records of this piece alone are read."""
        begin = float(first / MOTION_RATE) - LONGEST_GAP_S
        end = float((first + count) / MOTION_RATE) + LONGEST_GAP_S
        near = self._rows[(self._seconds >= begin) & (self._seconds <= end)]
        near = near[near >= 0]
        if not len(near):
            return None
        return on_grid(self._faces.read_rows(near.tolist()), self._seconds, count, first)


@asynccontextmanager
async def tracked(stages: Stages, info: MediaInfo, working: Path) -> AsyncIterator[LargestFace]:
    """Track a video, and yield its largest face.

    Args:
        working: file that holds the records meanwhile, about 83 kB a frame and face.

    Raises:
        MediaUnsupportedError: the video cannot be read to its end.
        NoUsableFootageError: the video shows no face.
        StorageFullError: no space is left for the records.
        DubstageError: from the face stage.
    """
    working.unlink(missing_ok=True)
    try:
        with RecordFile(working, FACE_RECORD, in_folder=in_output) as faces:
            cuts = await analyse_footage(stages, info, faces, threads=1, on_progress=lambda _: None)
            index = read_index(faces, cuts, info.video.num_frames)
            chosen = await choose_face(index, FaceChoice("largest"), None)
            if chosen is None:
                raise NoUsableFootageError("no face in the video", subject=str(info.path))
            seconds = np.asarray((info.video.pts - info.video.pts[0]) * float(info.video.time_base), np.float64)
            yield LargestFace(faces, index.rows_of(chosen.face_id), seconds, max(1, round(info.video.duration * MOTION_RATE)))
    finally:
        working.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTask:
    """A clip to take in.

    Attributes:
        file: path below the folder of the clips, with forward slashes.
        name: the clip's name in the training set.
        is_video: whether the file is a video, otherwise it is a recording.
        source: name of the corpus.
        speaker: name of the person.
        spoken: what is said.
    """

    file: str
    name: str
    shard: str
    is_video: bool
    source: str
    speaker: str
    spoken: ClipText

    @property
    def text(self) -> str:
        """Digest of what the files of sound note besides the sound."""
        named = json.dumps([self.source, self.speaker, self.spoken.transcript, self.spoken.words])
        return hashlib.sha256(named.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipNetworks:
    """Digests of the models that make features and lags. `lag` is empty if no lags are measured."""

    audio: str
    lag: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece before its files are written. A recording has no track, and a video may have none."""

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
        networks: digests of their networks.
        output: folder of the training set.
        working: folder for the records of faces while a video is tracked.
    """

    def __init__(self, stages: Stages, networks: ClipNetworks, folder: Path, output: Path, working: Path) -> None:
        self._stages, self._networks, self._folder, self._output, self._working = stages, networks, folder, output, working

    async def make(self, task: ClipTask) -> ClipRecord:
        """Make what is missing of a clip, and return its record. One piece is held in memory: about 0.5 GB for a minute of video.

        A changed file is made from the beginning. Changed networks make features and lag again, from the sound in the set.

        Raises:
            MediaUnsupportedError: the file cannot be read to its end.
            NoUsableFootageError: no piece shows a face well, or there is no sound.
            DubstageError: from a stage.
        """
        path = self._folder / task.file
        facts = path.stat()
        old = read_record(self._output, task.shard, task.name)
        if old is not None and (old.size, old.changed_ns) == (facts.st_size, facts.st_mtime_ns):
            sha256 = old.sha256
        else:
            sha256 = file_sha256(path)
        if old is not None:
            if old.sha256 == sha256 and all(file.is_file() for file in files_of(self._output, old, BUILT)):
                try:
                    record = await self._renewed(task, replace(old, size=facts.st_size, changed_ns=facts.st_mtime_ns))
                except DamagedFileError:
                    pass
                else:
                    if record != old:
                        write_record(self._output, task.name, record)
                    return record
            forget(self._output, task.name, old, task.speaker)
        return await self._built(task, sha256, facts)

    async def _built(self, task: ClipTask, sha256: str, facts: os.stat_result) -> ClipRecord:
        kept: list[PieceFacts] = []
        left_out: dict[str, str] = {}
        is_cut = False
        (self._output / "shards" / task.shard).mkdir(parents=True, exist_ok=True)
        number = 0
        async for piece in self._video(task) if task.is_video else self._recording(task):
            name = f"{task.name}+{number}" if number else task.name
            number, is_cut = number + 1, not piece.is_whole
            if task.is_video and (piece.track is None or piece.usable_frames < LEAST_USABLE * piece.frames):
                left_out[name] = f"only {piece.usable_frames} of {piece.frames} frames show a mouth well"
            else:
                kept.append(await self._written(task, name, piece, sha256))
        if not kept:
            raise NoUsableFootageError("; ".join(left_out.values()) or "there is no sound in it", subject=task.file)
        record = ClipRecord(
            file=task.file,
            shard=task.shard,
            sha256=sha256,
            size=facts.st_size,
            changed_ns=facts.st_mtime_ns,
            text=task.text,
            audio_networks=self._networks.audio,
            lag_model=self._networks.lag if task.is_video else "",
            has_face=task.is_video,
            is_cut=is_cut,
            pieces=tuple(kept),
            left_out=left_out,
        )
        write_record(self._output, task.name, record)
        return record

    async def _video(self, task: ClipTask) -> AsyncIterator[_Piece]:
        info = inspect_video(self._folder / task.file)
        if not info.audio:
            raise NoUsableFootageError(
                "the video has no sound: networks would learn that silence moves the mouth", subject=task.file
            )
        self._working.mkdir(parents=True, exist_ok=True)
        async with tracked(self._stages, info, self._working / f"{os.getpid()}.faces") as video:
            sound = read_pieces(SoundReader(info.path, origin=info.video.start))
            for first, count in video.pieces():
                samples = fitted_to_grid(next(sound, np.zeros(0, np.int16)), count)
                yield _Piece(first, samples, video.track(first, count), is_whole=count == video.num_frames)

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
        features = await extract_features(self._stages, piece.samples)
        lag = ClipLag()
        spoken = _said(task, piece.first_frame, piece.frames, is_cut=not piece.is_whole)
        files.drop(*PREPARED)
        if piece.track is not None:
            if self._networks.lag:
                lag = await measure_lag(self._stages, piece.track.mouth_landmarks, piece.track.usable, features)
            files.put("track", _arrays(piece.track), {"sha256": sha256})
        files.put("sound", {"samples": piece.samples}, _about_sound(task, spoken, piece.first_frame, sha256))
        files.put("speech", _arrays(features), self._about_speech(lag))
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
        text_changed = record.text != task.text
        networks_changed = record.audio_networks != self._networks.audio
        measured = record.has_face and bool(self._networks.lag) and (networks_changed or record.lag_model != self._networks.lag)
        pieces: list[PieceFacts] = []
        for piece in record.pieces:
            files = ClipFiles(self._output, task.shard, piece.name)
            renewed = _with_new_transcript(task, files, piece, record) if text_changed else piece
            if networks_changed or measured:
                renewed = await self._with_new_features(files, renewed, extract=networks_changed, measure=measured)
            pieces.append(renewed)
        return replace(
            record,
            text=task.text,
            audio_networks=self._networks.audio,
            lag_model=self._networks.lag if measured else "" if networks_changed else record.lag_model,
            pieces=tuple(pieces),
        )

    async def _with_new_features(self, files: ClipFiles, piece: PieceFacts, *, extract: bool, measure: bool) -> PieceFacts:
        if extract:
            features = await extract_features(self._stages, files.get("sound", "samples")["samples"])
        else:
            features = ClipFeatures(**files.get("speech", *(each.name for each in fields(ClipFeatures))))
        lag = ClipLag()
        if measure:
            track = files.get("track", "mouth_landmarks", "usable")
            lag = await measure_lag(self._stages, track["mouth_landmarks"], track["usable"], features)
        files.put("speech", _arrays(features), self._about_speech(lag))
        return replace(piece, lag_frames=lag.frames, lag_confidence=lag.confidence)

    def _about_speech(self, lag: ClipLag) -> dict[str, str]:
        return {
            "audio_networks": self._networks.audio,
            "lag_model": self._networks.lag if lag.confidence >= 0 else "",
            "lag_frames": str(lag.frames),
            "lag_confidence": str(lag.confidence),
        }


def _with_new_transcript(task: ClipTask, files: ClipFiles, piece: PieceFacts, record: ClipRecord) -> PieceFacts:
    """Write the sound of a piece with what is said now. Phone labels of other words are removed."""
    spoken = _said(task, piece.first_frame, piece.frames, is_cut=record.is_cut)
    samples = files.get("sound", "samples")
    files.drop("phones")
    files.put("sound", samples, _about_sound(task, spoken, piece.first_frame, record.sha256))
    return replace(piece, transcript=spoken.transcript)


def _said(task: ClipTask, first_frame: int, frames: int, *, is_cut: bool) -> ClipText:
    if not is_cut:
        return task.spoken
    return task.spoken.part(float(first_frame / MOTION_RATE), float((first_frame + frames) / MOTION_RATE))


def _about_sound(task: ClipTask, spoken: ClipText, first_frame: int, sha256: str) -> dict[str, str]:
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
