"""Types of a batch that its manifest, its store, its workers, its engines and its report share."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field

from dubstage.gateway.v1.dub_pb2 import DubSpec, LineSpec, ShotOptions
from gateway.dub.request.spec_text import actor_of, is_sequence_spec, with_options
from gateway.media.choices import BUILT_IN
from gateway.media.locations import local_path
from gateway.media.sequence_names import is_sequence, listing_file, sound_file

if TYPE_CHECKING:
    from gateway.reports.appearance import AppearanceMetrics
    from services.common.wire.mouth_curves import MotionMetrics

WORKERS_FOLDER: Final = "workers"
"""Folder below the data folder for what worker processes print, and for the locks of shots with the same mouths."""
MAX_ATTEMPTS: Final = 3
"""Times that a shot is tried before it counts as failed."""

ShotId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
"""Id of a shot, unique in its batch: at most 63 letters, digits, dots, hyphens and underscores."""
Engine = Literal["local", "kubernetes", "farm", "gateway"]
"""Who dubs the shots of a batch; `gateway`: gateways dub the shots themselves."""
BatchName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""Name of a batch: at most 40 small letters, digits and hyphens, so that names of Kubernetes can be made from it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quality(_Strict):
    """Thresholds of a shot's quality gate. A shot that misses one is done, and is marked for a person to look at.

    Attributes:
        min_dubbed_share: least share of the frames that are dubbed, 0 to 1.
        min_r_opening: least correlation between the target opening of the mouth and the opening in the video, -1 to 1.
        max_warnings: most warnings.
        max_silence_opening: largest opening of the mouth in silence, as a share of the person's own range.
        min_opening_spread: least spread of the opening, relative to the person's own spread.
        max_opening_spread: largest spread of the opening, relative to the person's own spread.
        min_width_spread: least spread of the lip width about its slow part, relative to the person's own spread.
        max_fastest_step: largest change of the opening within 40 ms, relative to the person's own largest change.
        max_tint_alarms: largest share of the open mouths whose teeth have a colour that the person's own do not have.
        max_nostril_alarms: largest share of the frames with a dark place between nose and upper lip, such as second nostrils.
        max_low_contrast: largest share of the open mouths whose inside has low contrast, beyond the person's own share.
        max_popping: largest mean change of the inside of the mouth from frame to frame, relative to the person's own.
        max_clothing_moved: largest share of the frames in which clothing beside or below the jaw moves.
        max_face_distance: largest distance of the face embeddings of dub and video.
        max_shift_ms: most milliseconds by which the mouth is earlier or later than real people's at open vowels or p, b, m.
    """

    min_dubbed_share: float | None = Field(None, ge=0, le=1)
    min_r_opening: float | None = Field(None, ge=-1, le=1)
    max_warnings: int | None = Field(None, ge=0)
    max_silence_opening: float | None = Field(None, ge=0, le=100)
    min_opening_spread: float | None = Field(None, ge=0, le=100)
    max_opening_spread: float | None = Field(None, ge=0, le=100)
    min_width_spread: float | None = Field(None, ge=0, le=100)
    max_fastest_step: float | None = Field(None, ge=0, le=100)
    max_shift_ms: float | None = Field(None, ge=0, le=1000)
    max_tint_alarms: float | None = Field(None, ge=0, le=1)
    max_nostril_alarms: float | None = Field(None, ge=0, le=1)
    max_low_contrast: float | None = Field(None, ge=0, le=1)
    max_popping: float | None = Field(None, ge=0, le=100)
    max_clothing_moved: float | None = Field(None, ge=0, le=1)
    max_face_distance: float | None = Field(None, ge=0, le=10)


class Words(_Strict):
    """Words that a command of the worker's machine speaks, in place of a sound file.

    Attributes:
        say: the words.
        voice: voice, as the command names it; empty: none is named.
    """

    say: str
    voice: str = ""


class ShotMotion(_Strict):
    """Motion of a dub compared with the person's own motion, and its times with those of real people. None: not measured.

    The figures are those of services/common/wire/mouth_curves.py.

    Attributes:
        silence_opening: how far the mouth opens in silence, as a share of the person's range; 0: at rest.
        opening_spread: spread of the opening, divided by the person's own.
        width_spread: spread of the lip width about its slow part, divided by the person's own.
        fastest_step: largest change of the opening within 40 ms, divided by the person's own.
        vowel_shift_ms: how much later than real people's the mouth is widest about open vowels, against the sound.
        closure_shift_ms: how much later than real people's the lips are closest about p, b, m, against the sound.
    """

    silence_opening: float | None = None
    opening_spread: float | None = None
    width_spread: float | None = None
    fastest_step: float | None = None
    vowel_shift_ms: float | None = None
    closure_shift_ms: float | None = None

    @staticmethod
    def of(figures: MotionMetrics) -> ShotMotion:
        """Return figures without NaN, rounded to four digits."""
        return ShotMotion(**{name: round(value, 4) for name, value in asdict(figures).items() if math.isfinite(value)})


class ShotAppearance(_Strict):
    """Appearance of a dubbed mouth, compared with the footage (gateway/reports/appearance.py). None: not measured.

    Attributes:
        tint_alarms: share of the open mouths whose teeth have a colour that the person's own do not have.
        nostril_alarms: share of the frames with a dark place between nose and upper lip.
        low_contrast: share of the open mouths whose inside has low contrast, less the share in the video.
        popping: mean change of the inside from frame to frame, divided by the video's.
        clothing_moved: share of the frames in which clothing moves.
        face_distance: distance of the face embeddings of dub and video.
    """

    tint_alarms: float | None = None
    nostril_alarms: float | None = None
    low_contrast: float | None = None
    popping: float | None = None
    clothing_moved: float | None = None
    face_distance: float | None = None

    @staticmethod
    def of(figures: AppearanceMetrics) -> ShotAppearance:
        """Return figures without NaN, rounded to four digits. What only ranks methods, or marks good dubs too, is left out."""
        numbers = {name: value for name, value in asdict(figures).items() if name in ShotAppearance.model_fields}
        return ShotAppearance(**{name: round(value, 4) for name, value in numbers.items() if math.isfinite(value)})


class ShotFinish(_Strict):
    """Finished video compared with its own sound and with the footage (gateway/batch/finished.py). None: not measured.

    Attributes:
        lateness_ms: how much later than the sound the mouth moves, milliseconds; negative: earlier.
        sync_confidence: how sure the lateness is, 0 and more. Low: sound and mouth may not belong together.
        sync_distance: distance of mouth and sound at the best lateness, 0 to 2.
        still_share: share of the frames of speech in which the mouth stands still.
        seam: edge that the dub has added to the skin about the mouth and that stays all the time, share of the brightness of the
            skin.
        flicker: change of the brightness of the skin about the mouth from frame to frame that the dub has added, as a share of it.
    """

    lateness_ms: float | None = None
    sync_confidence: float | None = None
    sync_distance: float | None = None
    still_share: float | None = None
    seam: float | None = None
    flicker: float | None = None


def _frames_of(pattern: Path) -> str:
    """Return one path for all patterns of the same frames, whatever their range and their digits."""
    return str(sound_file(pattern).with_suffix(pattern.suffix))


@dataclass(frozen=True, slots=True)
class ShotSpec:
    """One row of a manifest: one video to dub.

    Attributes:
        id: id of the shot.
        dub: the dub. Paths are absolute after the manifest was read.
        quality: thresholds of the quality gate.
        words: words to speak; None: the dub names its speech, or takes the sound of the footage. DubSpec has no words, so that no
            caller of a gateway starts a command.
    """

    id: str
    dub: DubSpec
    quality: Quality = Quality()
    words: Words | None = None

    @property
    def is_sequence(self) -> bool:
        """Whether the footage is an image sequence."""
        return is_sequence_spec(self.dub)

    @property
    def output(self) -> str:
        """Path or URL of the video to write; of an image sequence, the pattern of the frames to write."""
        return self.dub.output_uri

    @property
    def result(self) -> str:
        """Path or URL of the file whose digest the record of the shot holds: the video; of a sequence, the list of its files."""
        pattern = Path(local_path(self.output) or self.output)
        return str(listing_file(pattern)) if self.is_sequence and is_sequence(pattern) else self.output

    @property
    def written(self) -> tuple[str, ...]:
        """Paths or URL of the files that the shot writes. The frames of a sequence count as one file."""
        if self.result == self.output:
            return (self.output,)
        pattern = Path(local_path(self.output) or self.output)
        return self.result, str(sound_file(pattern)), _frames_of(pattern)

    @property
    def read(self) -> dict[str, str]:
        """Path or URL of each file that the shot reads, by its field. The frames of a sequence count as one file."""
        footage = self.dub.footage_uri
        frames = {"footage": _frames_of(Path(local_path(footage) or footage))} if self.is_sequence else {}
        return {**self.inputs, **frames}

    @property
    def inputs(self) -> dict[str, str]:
        """Path or URL of each file that the shot reads, by its field of a row, such as `speech` or `lines[0].speech`."""
        files = dict(_named_files(self.dub, ""))
        files.pop("output", None)
        for number, line in enumerate(self.dub.lines):
            files |= _named_files(line, f"lines[{number}].")
        sequence = self.dub.sequence
        files |= {"footage_sound": sequence.sound_uri} if sequence.sound_uri else {}
        # Other configurations are built into OpenColorIO.
        files |= {"ocio": sequence.ocio} if sequence.ocio and not sequence.ocio.startswith(BUILT_IN) else {}
        return files

    @property
    def uris(self) -> dict[str, str]:
        """Path or URL of each file of the shot, by its field."""
        return {**self.inputs, "output": self.output}

    @property
    def _faces(self) -> tuple[DubSpec | LineSpec, ...]:
        return (self.dub, *self.dub.lines)

    @property
    def actor_ids(self) -> tuple[str, ...]:
        """Ids of the enrolled actors of the shot, each once."""
        return tuple(dict.fromkeys(actor_of(part) for part in self._faces if part.actor))

    def revises(self, other: ShotSpec) -> bool:
        """Return whether two shots are equal, or two scenes that differ only in their lines."""
        if bool(self.dub.lines) != bool(other.dub.lines):
            return False
        mine, others = deepcopy(self.dub), deepcopy(other.dub)
        del mine.lines[:], others.lines[:]
        return replace(self, dub=mine) == replace(other, dub=others)

    def with_options(self, options: ShotOptions) -> ShotSpec:
        """Return the shot with other values of the fields that options name."""
        return replace(self, dub=with_options(self.dub, options))

    def with_uris(self, uris: Mapping[str, str]) -> ShotSpec:
        """Return the shot with other files.

        Args:
            uris: path or URL by field, as `ShotSpec.uris` names the fields. Files of other fields stay.
        """
        dub = deepcopy(self.dub)
        for field, uri in uris.items():
            number, dot, word = field.rpartition(".")
            holder: Any = dub.lines[int(number[len("lines[") : -1])] if dot else dub
            if field == "ocio":
                dub.sequence.ocio = uri
            elif field == "footage_sound":
                dub.sequence.sound_uri = uri
            else:
                setattr(holder, f"{word}_uri", uri)
        return replace(self, dub=dub)

    def to_json(self) -> dict[str, Any]:
        """Return the shot as values of JSON, with the fields of BatchRow and Words. Equal shots have equal values."""
        fields: dict[str, Any] = {"shot_id": self.id, "dub": to_json(self.dub)}
        if limits := self.quality.model_dump(mode="json", exclude_none=True):
            fields["quality"] = limits
        if self.words is not None:
            fields |= self.words.model_dump(exclude_defaults=True)
        return fields


def _named_files(message: Any, prefix: str) -> dict[str, str]:
    """Return the files in the fields `..._uri` of a spec or a line, by the words of a row behind the prefix."""
    return {
        f"{prefix}{field.name.removesuffix('_uri')}": value
        for field, value in message.ListFields()
        if field.name.endswith("_uri") and value
    }


@dataclass(frozen=True, slots=True)
class Manifest:
    """Checked manifest.

    Attributes:
        name: name of the batch.
        shots: the rows. Paths are absolute.
        sha256: digest of the rows, 64 hexadecimal digits. Manifests with equal digests ask for the same videos.
    """

    name: str
    shots: tuple[ShotSpec, ...]
    sha256: str


def manifest_of(name: str, shots: Iterable[ShotSpec]) -> Manifest:
    """Return the manifest of checked shots."""
    shots = tuple(shots)
    # Without the defaults, so that a new option of a later version does not make every batch another one.
    content = "".join(f"{json.dumps(shot.to_json(), sort_keys=True, separators=(',', ':'))}\n" for shot in shots).encode("ascii")
    return Manifest(name, shots, hashlib.sha256(content).hexdigest())


def options_in(stored: Mapping[str, Any]) -> ShotOptions:
    """Return the options of a shot that are stored as JSON.

    Raises:
        ValueError: the values are no options.
    """
    options: ShotOptions = _from_json(ShotOptions(), stored)
    return options


class ShotState(StrEnum):
    """State of a shot. The order is the order of a shot's life."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    UNDUBBED = "undubbed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WRITTEN: Final = frozenset({ShotState.DONE, ShotState.UNDUBBED})
"""States of shots whose video is written. No frame of an UNDUBBED video is dubbed."""
TO_RETRY: Final = frozenset({ShotState.UNDUBBED, ShotState.FAILED, ShotState.CANCELLED})
"""States of the shots that a retry begins anew if the user names no shot."""
ENDED: Final = WRITTEN | TO_RETRY
"""States of shots that have ended. A shot leaves such a state if it is retried, or if its row changes."""
LEFT: Final = frozenset(ShotState) - ENDED
"""States of shots that have not ended."""


class ShotRecord(_Strict):
    """Record of a shot.

    Attributes:
        id: id of the shot.
        state: state of the shot.
        attempts: times that a worker has begun the shot.
        worker: who has it, such as HOST:PID or the name of a pod; empty while it waits.
        begun_at: begin of the last attempt, RFC 3339, UTC; empty: none has begun.
        ended_at: end of the last attempt, RFC 3339, UTC; empty: it has not ended.
        seconds: time of the last attempt that ended, seconds.
        frames: frames of the video; 0: not known yet.
        frames_dubbed: frames with a new mouth.
        frames_by_reason: number of frames by what happened to them (`dubbed` and the reason codes).
        output: path or URL of the video; of an image sequence, of the list of its files.
        output_sha256: digest of that file; empty: there is no video yet.
        method: method that dubbed the shot.
        r_opening: correlation between target and drawn opening; None: not measured (too few frames dubbed, or too long a video).
        motion: motion compared with the person's own; None: no frame is dubbed, or the person's own motion is not known.
        appearance: what eyes see of the dub; None: not measured.
        finish: the finished video compared with its own sound and with the footage; None: not measured.
        frame_rate: frames per second of the video, NUM/DEN; empty: not known.
        warnings: warnings of the dub.
        look: reasons why a person must look at the video: no frame is dubbed, or the quality gate marked it; empty: none.
        exit_code: exit code of the last attempt (services/common/errors.py); None: no attempt has ended.
        error: message of the error of the last attempt; empty: none.
        has_thumbnail: whether the store had a picture of the video.
        options: options of the last attempt that were changed since the batch was submitted (ShotOptions as JSON).
    """

    id: ShotId
    state: ShotState = ShotState.WAITING
    attempts: int = 0
    worker: str = ""
    begun_at: str = ""
    ended_at: str = ""
    seconds: float = 0.0
    frames: int = 0
    frames_dubbed: int = 0
    frames_by_reason: dict[str, int] = {}
    output: str = ""
    output_sha256: str = ""
    method: str = ""
    r_opening: float | None = None
    motion: ShotMotion | None = None
    appearance: ShotAppearance | None = None
    finish: ShotFinish | None = None
    frame_rate: str = ""
    warnings: tuple[str, ...] = ()
    look: tuple[str, ...] = ()
    exit_code: int | None = None
    error: str = ""
    has_thumbnail: bool = False
    options: dict[str, Any] = {}

    @property
    def subject(self) -> str:
        """Subject of decisions about the shot: the digest of the video; without a video, the end of the last attempt."""
        return self.output_sha256 or self.ended_at


class EarlierVideo(_Strict):
    """Video of a shot that a retry has replaced.

    Attributes:
        place: path of the video now.
        output: path of the shot's video, where the earlier video was.
        sha256: digest of the earlier video.
        options: options of that dub that were changed since the batch was submitted (ShotOptions as JSON).
    """

    place: str
    output: str
    sha256: str
    options: dict[str, Any]


class BatchFacts(_Strict):
    """Facts of a batch.

    Attributes:
        name: name of the batch.
        manifest_sha256: digest of the canonical manifest; a batch of this name with another digest is another batch.
        rows: number of shots.
        created_at: RFC 3339, UTC.
        engine: who dubs the shots.
        details: facts of the engine's own, such as the names of the Jobs.
    """

    name: BatchName
    manifest_sha256: str
    rows: int
    created_at: str
    engine: Engine
    details: dict[str, Any] = {}


def to_json(message: Message) -> dict[str, Any]:
    """Return the given fields of a message as values of JSON: messages as objects, names of enums, and numbers."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None:
            values[field.name] = [to_json(item) for item in value] if field.is_repeated else to_json(value)
        elif field.enum_type is not None:
            values[field.name] = field.enum_type.values_by_number[value].name
        else:
            values[field.name] = list(value) if field.is_repeated else value
    return values


def _from_json(message: Any, fields: Mapping[str, Any]) -> Any:
    """Set the fields of a message from what `to_json` returned, and return the message.

    Raises:
        ValueError: a field is unknown or has a wrong value.
    """
    descriptors = message.DESCRIPTOR.fields_by_name
    for name, value in fields.items():
        if name not in descriptors:
            raise ValueError(f"{message.DESCRIPTOR.name} has no field {name[:80]!r}")
        field = descriptors[name]
        try:
            if field.message_type is not None:
                for inner, target in _targets(message, field, value):
                    _from_json(target, inner)
            elif field.enum_type is not None:
                setattr(message, name, field.enum_type.values_by_name[value].number)
            elif field.is_repeated:
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        except (TypeError, KeyError, AttributeError) as problem:
            raise ValueError(f"{name}: {problem}") from None
    return message


def _targets(message: Any, field: FieldDescriptor, value: Any) -> Iterable[tuple[Any, Any]]:
    if field.is_repeated:
        return [(inner, getattr(message, field.name).add()) for inner in value]
    target = getattr(message, field.name)
    target.SetInParent()
    return [(value, target)]
