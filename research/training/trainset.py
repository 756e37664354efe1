"""Training sets: one layout on disk that every trainer reads.

    SET/manifest.jsonl                      one line a clip (ClipRow)
    SET/refused.jsonl                       one line a clip that was left out, with the reason
    SET/incomplete.jsonl                    one line a clip that a preparation could not complete, with the reason
    SET/shards/00000/NAME.track.safetensors     face: landmarks, head pose, mouth, render boxes (videos only)
    SET/shards/00000/NAME.sound.safetensors     sound: samples at 16 kHz
    SET/shards/00000/NAME.speech.safetensors    features of the sound on the motion grid
    SET/shards/00000/NAME.phones.safetensors    phone classes of the sound's rows
    SET/shards/00000/NAME.clip.json             file and networks that the clip was made with; `dubstage trainset` alone reads it
    SET/identities/SPEAKER.safetensors          identity of a person, SPEAKER.still.safetensors: from one frame

A shard is a folder of at most `CLIPS_A_SHARD` clips, so that no folder grows without bound. Trainers read the clips that
they draw, when they draw them, and keep a bounded number of bytes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Generic, Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from services.common.array_types import Array
from services.common.errors import InvalidRequestError
from services.common.files import write_whole

MANIFEST: Final = "manifest.jsonl"
REFUSED: Final = "refused.jsonl"
INCOMPLETE: Final = "incomplete.jsonl"
_IDENTITIES: Final = "identities"
FORMAT_VERSION: Final = "2"
LAG_ZERO: Final = 2
"""Number of the zero that lags are measured from. 1: of the filters before 28 November 2026, whose zero was 40 ms late."""
CLIPS_A_SHARD: Final = 1000

Part = Literal["track", "sound", "speech", "phones", "expression"]
"""Files of a clip.

    track   landmarks float32 [T, 478, 3] (frame pixels); scale, rotation, translation float64 [T], [T, 3, 3], [T, 3];
            mouth_landmarks float32 [T, 59, 3] (head space); usable bool [T]; boxes uint8 [T, 160, 160, 3] (RGB, the render box). 25
            frames/s.
    sound   samples int16 [N] at 16 kHz, 32767 is full scale. Sample 0 belongs to the first frame. Metadata: `source`, `speaker`,
            `transcript`, `sha256`, `first_frame`, and `words` where times are known: a JSON list of [word, start in s, end in s].
    speech  mel float32 [T, 4, 80]; mfcc float32 [T, 4, 40]; posteriorgram float32 [T, 4, 40]; identity_removed float32 [T, 4, 20];
            speech_probability float32 [T]; speech_states, speech_states_live float32 [T, 192]. 25 frames/s.
    phones  labels uint8 [R], one class of services.common.wire.phones per row of 10 ms, 255 where unknown; heard uint8 [R], classes
            by free phone recognition, 255 where there was none. Metadata `origin`: aligned, recognised, allphone or network.
    expression  coefficients float32 [T, E] in units of the person's spread. SET/expression.safetensors has `shape` float32 [P, E]:
            the pixels by which a coefficient of one typical spread moves the P mouth coordinates.
"""
CACHE_BYTES: Final = 1 << 30
"""Memory that a trainer keeps of the clips that it has read, by default."""
KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


def shard_name(number: int) -> str:
    """Return the name of the shard of a clip.

    Args:
        number: number of the clip in the order in which clips were taken in, from 0.
    """
    return f"{number // CLIPS_A_SHARD:05d}"


def part_path(folder: Path, shard: str, name: str, part: Part) -> Path:
    """Return the path of one file of a clip."""
    return folder / "shards" / shard / f"{name}.{part}.safetensors"


def all_identities(folder: Path) -> list[Path]:
    """Return the paths of the identities that a training set holds."""
    return sorted((folder / _IDENTITIES).glob("*.safetensors"))


def identity_path(folder: Path, speaker: str, *, still: bool) -> Path:
    """Return the path of a person's identity, fitted to many frames or, as for a still picture, to one."""
    return folder / _IDENTITIES / f"{speaker.replace('/', '_')}{'.still' if still else ''}.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRow:
    """One clip.

    Attributes:
        shard: name of the clip's shard.
        file: path of the footage or recording below the folder that the set was made from, with forward slashes.
        sha256: SHA-256 of that file, hexadecimal.
        source: name of the corpus.
        speaker: name of the person. Clips of one person have one name.
        split: `train`, `val` (held out: the best step is selected on it), or another split that is only read where it is named.
        licence: licence of the clip; empty: unknown.
        transcript: spoken words; empty: unknown.
        has_face: whether the clip has a track.
        has_pixels: whether a network may learn from the clip's pixels. Sound and landmarks may always be learned from.
        frames: number of frames at 25 frames/s.
        usable_frames: number of frames that show the mouth well; 0 without a face.
        face_px: median width of the face, pixels of the footage; 0 without a face.
        seconds: length of the clip.
        speaker_hours: length of all clips of this person in the set.
        lag_frames: lag of the sound to take out, frames: the sound of frame n + lag belongs to the picture of frame n.
        lag_confidence: EstimateLagResponse.confidence of this clip alone; -1: not measured.
        lag_zero: LAG_ZERO of the filters that measured the lag.
        phones: origin of the phone labels: `aligned`, `recognised`, `allphone`, `network`; empty: no labels.
        weight: how often the clip is drawn, relative to other clips of its speaker's size.
        narrow: whether the clip's corpus has one kind of sentence, see research.trainset.catalogue.CorpusSource.
        language: language that is spoken (BCP 47); empty: unknown.
        first_frame: frame of the footage or recording at 25 frames/s at which the clip begins. Not 0 if a long file was cut.
    """

    name: str
    shard: str
    file: str
    sha256: str
    source: str
    speaker: str
    split: str
    licence: str = ""
    transcript: str = ""
    has_face: bool = False
    has_pixels: bool = True
    frames: int = 0
    usable_frames: int = 0
    face_px: float = 0.0
    seconds: float = 0.0
    speaker_hours: float = 0.0
    lag_frames: int = 0
    lag_confidence: float = -1.0
    lag_zero: int = 1
    phones: str = ""
    weight: float = 1.0
    narrow: bool = False
    first_frame: int = 0
    language: str = ""


_ROW: TypeAdapter[ClipRow] = TypeAdapter(ClipRow)


def manifest_line(row: ClipRow) -> str:
    """Return the line of a row, with its newline."""
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def write_manifest(folder: Path, rows: Iterable[ClipRow]) -> None:
    """Write the manifest of a training set. A reader sees the manifest before or the whole new one."""
    write_whole(folder / MANIFEST, (manifest_line(row).encode() for row in rows))


def read_manifest(folder: Path) -> Iterator[ClipRow]:
    """Yield the rows of a training set's manifest in their order.

    Args:
        folder: folder of the training set.

    Raises:
        InvalidRequestError: the folder holds no manifest, or a line is wrong. The message names file, line and field.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InvalidRequestError(
            f"{folder} is not a training set: it has no {MANIFEST}; make one with `dubstage trainset CLIPS --output {folder}`",
            field="data",
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _ROW.validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                location = ".".join(str(part) for part in first["loc"]) or "the line"
                raise InvalidRequestError(f"{path}, line {number}: {location}: {first['msg']}", field="data") from error


def speaker_hours(rows: Iterable[ClipRow]) -> dict[str, float]:
    """Return the hours of each speaker, rounded to 0.0001."""
    seconds: dict[str, float] = {}
    for row in rows:
        seconds[row.speaker] = seconds.get(row.speaker, 0.0) + row.seconds
    return {speaker: round(total / 3600, 4) for speaker, total in seconds.items()}


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
        any_zero: whether lags that were measured from another zero (LAG_ZERO) are taken too.

    Raises:
        InvalidRequestError: the folder holds no manifest, the manifest is damaged, or its lags are of another zero.
    """

    def __init__(self, folder: Path, *, any_zero: bool = False) -> None:
        self.folder = folder
        self.rows = tuple(read_manifest(folder))
        old = [row.name for row in self.rows if row.lag_confidence >= 0.0 and row.lag_zero != LAG_ZERO]
        if old and not any_zero:
            raise InvalidRequestError(
                f"{folder}: the lags of {len(old)} clips ({old[0]}, ...) were measured from an earlier zero, 40 ms late; call "
                "`dubstage trainset` with the same arguments again, which measures the lags anew",
                field="data",
            )

    def of(self, split: str, *, face: bool = False, pixels: bool = False, phones: bool = False) -> list[ClipRow]:
        """Return the rows of a split in the order of the manifest.

        Args:
            face: only clips with a track.
            pixels: only clips with a track whose pixels may be learned from.
            phones: only clips with phone labels.

        Raises:
            InvalidRequestError: there is no such clip. The message says what the set lacks.
        """
        rows = [
            row
            for row in self.rows
            if row.split == split
            and (row.has_face or not (face or pixels))
            and (row.has_pixels or not pixels)
            and (bool(row.phones) or not phones)
        ]
        if not rows:
            wants = [
                name
                for name, wanted in (("a face", face or pixels), ("pixels to learn from", pixels), ("phones", phones))
                if wanted
            ]
            raise InvalidRequestError(
                f"{self.folder}: no clip of split {split!r}{' with ' + ' and '.join(wants) if wants else ''}; "
                "add such clips to the folder of clips, and complete the set with `dubstage trainset`",
                field="data",
            )
        return rows

    def arrays(self, row: ClipRow, part: Part, names: Sequence[str], rows: slice | None = None) -> dict[str, Array]:
        """Return some arrays of a clip. Other arrays of the file are not read.

        Args:
            row: the clip.
            part: file of the clip.
            rows: first and last row of the arrays to read, both inside the arrays; None: all rows.

        Raises:
            InvalidRequestError: the file is missing, damaged, or lacks an array. The message names the file.
        """
        path = part_path(self.folder, row.shard, row.name, part)
        try:
            with safe_open(path, "numpy") as file:
                return {name: np.asarray(file.get_tensor(name) if rows is None else file.get_slice(name)[rows]) for name in names}
        except (OSError, SafetensorError) as problem:
            raise InvalidRequestError(
                f"{path}: {problem}; make the clip again: delete the file and call `dubstage trainset` again", field="data"
            ) from problem


def by_speaker(rows: Iterable[ClipRow]) -> dict[str, list[ClipRow]]:
    """Return the rows of each speaker, with speakers in the order of their names."""
    groups: dict[str, list[ClipRow]] = {}
    for row in rows:
        groups.setdefault(row.speaker, []).append(row)
    return dict(sorted(groups.items()))
