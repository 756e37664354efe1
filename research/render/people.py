"""People of a training set: their clips, their identities on a morphable model (as `dubstage trainset` fitted them), and a bounded
number of people in memory, drawn anew from time to time.

Sources of batches, and random colours for training pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np

from research.training.trainset import BoundedCache, ClipRow, TrainSet, identity_path
from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ANCHORS, measure_geometry
from services.common.face.crops import HeadPose, to_head_space
from services.common.face.drawing import IdentityDrawing
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.face.landmarks import mouth_opening
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import MouthBank, make_bank
from services.common.store.tensor_bytes import decode_arrays
from services.render.key_pictures import STATE_SIZE, KeyPictures, unpacked
from services.render.pairs import LandmarkNoise

SHARP_FACE_PX: Final = 170.0
"""Width of a face, pixels of the footage, from which the footage has about the resolution of the render box (185 px a face)."""
MIN_FRAMES: Final = 30
"""Usable frames of a clip below which the clip is left out: so many that each frame, and each sequence of six frames, has frames
farther away than services.render.pairs.NEAREST_FRAMES."""
_CLIP_STRIDE: Final = 100_000
"""Added to the frame index from clip to clip of one person, so that no window runs over a cut."""
_FRAME_BYTES: Final = 90_000
"""Memory of one frame of a bank: the render box, landmarks, and what the search in a bank adds."""
_POOL: Final = 1 << 31
"""Last number of the seeds of pools, so that no pool has the seed of a batch."""
_TRACK: Final = ("landmarks", "scale", "rotation", "translation", "mouth_landmarks", "boxes")
_REMEDY: Final = "`dubstage trainset` fits the identities of the people, from the clips that the set was made of"
_WIDE_SHARE: Final = 0.5
_WIDE: Final = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class PeopleSettings:
    """Rates at which people are drawn, and the number of people in memory.

    Attributes:
        max_clips: largest number of clips of one person in memory.
        max_frames: largest number of frames of one person in memory. The largest memory of a process that makes batches is
            `pool_people` x `max_frames` x 90 kB.
        sharp_share: share of the examples that comes from sharp footage (SHARP_FACE_PX).
        pool_people: people that are drawn from at one time.
        pool_steps: steps after which other people, and other clips of people with many clips, are drawn.
    """

    max_clips: int = 16
    max_frames: int = 1200
    sharp_share: float = 0.55
    pool_people: int = 24
    pool_steps: int = 250


@dataclass(frozen=True, slots=True)
class PersonClips:
    """Clips of one person.

    Attributes:
        sharp: whether the footage has at least the resolution of the render box.
        rows: the clips, ordered by name.
    """

    name: str
    sharp: bool
    rows: tuple[ClipRow, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPerson:
    """Frames of one person.

    Attributes:
        bank: the frames.
        number: index among all people of the training.
    """

    name: str
    bank: MouthBank
    number: int = 0


class ClipSpan(NamedTuple):
    """Part of a clip: usable frames `first` to `last` - 1, counted among the clip's usable frames."""

    row: ClipRow
    first: int
    last: int


def person_clips(rows: Iterable[ClipRow], *, apart: bool = True) -> list[PersonClips]:
    """Return clips by person, ordered by the person's name. Clips that are too short and clips of weight 0 are left out.

    Args:
        rows: clips with pixels to learn from.
        apart: whether a person's sharp footage and the rest form two entries. If not, no entry counts as sharp.

    Raises:
        InvalidRequestError: no clip is left.
    """
    groups: dict[tuple[str, bool], list[ClipRow]] = {}
    for row in rows:
        if row.usable_frames >= MIN_FRAMES and row.weight > 0:
            groups.setdefault((row.speaker, apart and row.face_px >= SHARP_FACE_PX), []).append(row)
    if not groups:
        raise InvalidRequestError(
            f"no clip to learn from shows the mouth in at least {MIN_FRAMES} frames: add clips of 2 seconds or more to the "
            "folder of clips, and complete the set with `dubstage trainset`",
            field="data",
        )
    return [
        PersonClips(name, sharp, tuple(sorted(members, key=lambda row: row.name)))
        for (name, sharp), members in sorted(groups.items())
    ]


def person_shares(people: Sequence[PersonClips], settings: PeopleSettings) -> Float64:
    """Return how often each person is drawn, sum 1: by the root of their frames, sharp footage as often as `sharp_share` says.

    No person counts more than `max_frames` frames. A clip's frames count as often as its weight says.
    """
    sharp = np.array([person.sharp for person in people])
    counted = [min(settings.max_frames, sum(row.weight * row.usable_frames for row in person.rows)) for person in people]
    frames = np.sqrt(counted)
    shares = np.where(sharp, frames / max(frames[sharp].sum(), 1e-9) * settings.sharp_share, 0.0)
    rest = 1.0 - shares.sum()
    soft = np.where(sharp, 0.0, frames)
    shares += soft / soft.sum() * rest if soft.any() else 0.0
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def frame_spans(person: PersonClips, settings: PeopleSettings, rng: np.random.Generator) -> tuple[ClipSpan, ...]:
    """Return the parts of a person's clips that are in memory at one time.

    A person with few and short clips always gets all of them. Otherwise clips are drawn at random by their weights, and long clips
    give a part of equal length at a random position.
    """
    rows = person.rows
    if len(rows) > settings.max_clips:
        weights = np.array([row.weight for row in rows])
        chosen = rng.choice(len(rows), settings.max_clips, replace=False, p=weights / weights.sum())
        rows = tuple(rows[index] for index in np.sort(chosen))
    if sum(row.usable_frames for row in rows) <= settings.max_frames:
        return tuple(ClipSpan(row, 0, row.usable_frames) for row in rows)
    longest = max(MIN_FRAMES, settings.max_frames // len(rows))
    firsts = [int(rng.integers(max(1, row.usable_frames - longest + 1))) for row in rows]
    return tuple(ClipSpan(row, first, min(first + longest, row.usable_frames)) for row, first in zip(rows, firsts, strict=True))


def read_bank(data: TrainSet, parts: Sequence[ClipSpan]) -> MouthBank:
    """Return a bank of parts of clips of one person.

    Raises:
        InvalidRequestError: a file is missing or damaged, or has another number of usable frames than the manifest says.
    """
    boxes, mouth, rotation, index = [], [], [], []
    anchors: list[Float32] = []
    for number, part in enumerate(parts):
        usable = np.flatnonzero(data.arrays(part.row, "track", ("usable",))["usable"])[part.first : part.last]
        if len(usable) != part.last - part.first:
            raise InvalidRequestError(
                f"{data.folder}: clip {part.row.name} has fewer usable frames than the manifest says: make the set again",
                field="data",
            )
        track = data.arrays(part.row, "track", _TRACK, slice(int(usable[0]), int(usable[-1]) + 1))
        taken = usable - usable[0]
        points, turns = track["landmarks"][taken][:, list(ANCHORS)], track["rotation"][taken]
        poses = map(HeadPose, track["scale"][taken].tolist(), turns, track["translation"][taken])
        anchors.extend(to_head_space(each, pose) for each, pose in zip(points, poses, strict=True))
        boxes.append(track["boxes"][taken])
        mouth.append(track["mouth_landmarks"][taken])
        rotation.append(turns)
        index.append(taken + number * _CLIP_STRIDE)
    all_mouth = np.concatenate(mouth)
    geometry = measure_geometry(all_mouth, np.stack(anchors))
    return make_bank(np.concatenate(boxes), all_mouth, np.concatenate(rotation), np.concatenate(index).astype(np.int64), geometry)


class People:
    """People of a training, a bounded number of them in memory.

    Who is in memory at a step depends on seed and step alone, so that a resumed training draws the same batches.

    Args:
        settings: how many of them are in memory.
        seed: random seed of the pools.
        shares: float64 [P], how often each person is drawn, sum 1; None: as `person_shares` says.
    """

    def __init__(
        self,
        data: TrainSet,
        people: Sequence[PersonClips],
        settings: PeopleSettings,
        *,
        seed: int,
        shares: Float64 | None = None,
    ) -> None:
        self.clips = tuple(people)
        self._settings, self._seed = settings, seed
        self._shares = person_shares(people, settings) if shares is None else shares
        memory = settings.pool_people * settings.max_frames * _FRAME_BYTES
        self._banks = BoundedCache[tuple[ClipSpan, ...], MouthBank](
            lambda parts: read_bank(data, parts), lambda bank: bank.num_frames * _FRAME_BYTES, memory
        )

    @property
    def rows(self) -> list[ClipRow]:
        """Rows of all clips."""
        return [row for person in self.clips for row in person.rows]

    def draw(self, rng: np.random.Generator, step: int) -> TrainingPerson:
        """Return a random person of those in memory at a step; over all pools as often as their shares say."""
        number = self.pool(step)
        if number is None:
            return self.person(int(rng.choice(len(self.clips), p=self._shares)), step)
        return self.person(int(rng.choice(number)), step)

    def pool(self, step: int) -> tuple[int, ...] | None:
        """Return the numbers of the people in memory at a step, each as often as drawn; None: all people."""
        settings = self._settings
        if len(self.clips) <= settings.pool_people:
            return None
        rng = np.random.default_rng((self._seed, step // settings.pool_steps, 0, _POOL))
        return tuple(rng.choice(len(self.clips), settings.pool_people, p=self._shares).tolist())

    def parts(self, number: int, step: int) -> tuple[ClipSpan, ...]:
        """Return the parts of a person's clips that are in memory at a step."""
        rng = np.random.default_rng((self._seed, step // self._settings.pool_steps, 1 + number, _POOL))
        return frame_spans(self.clips[number], self._settings, rng)

    def person(self, number: int, step: int) -> TrainingPerson:
        """Return a person with the frames that are in memory at a step.

        Raises:
            InvalidRequestError: a file of the person is missing or damaged.
        """
        return TrainingPerson(self.clips[number].name, self._banks[self.parts(number, step)], number)


class IdentifiedRows(NamedTuple):
    """Clips of the people who have an identity.

    Attributes:
        rows: training clips with pixels.
        without: names of the people of the set who have no identity.
    """

    rows: Sequence[ClipRow]
    without: set[str]


def identified_rows(data: TrainSet, *, needs_still: bool = False) -> IdentifiedRows:
    """Return the training clips of the people who have an identity.

    Args:
        needs_still: whether a person needs the identity fitted on a single frame as well.

    Raises:
        InvalidRequestError: nobody has an identity.
    """
    kinds = (False, True) if needs_still else (False,)

    def is_identified(speaker: str) -> bool:
        return all(identity_path(data.folder, speaker, still=still).is_file() for still in kinds)

    without = {row.speaker for row in data.rows if not is_identified(row.speaker)}
    rows = [row for row in data.of("train", pixels=True) if row.speaker not in without]
    if not rows:
        raise InvalidRequestError(f"{data.folder}/identities: nobody has an identity: {_REMEDY}", field="data")
    return IdentifiedRows(rows, without)


def read_drawing(data: TrainSet, speaker: str, *, still: bool = False, models: MorphableModels | None = None) -> IdentityDrawing:
    """Return the drawing of a person.

    Args:
        speaker: name of the person.
        still: whether to read the identity fitted on a single frame. Otherwise it was fitted on many frames.
        models: the morphable models; None: a new object.

    Raises:
        InvalidRequestError: the set has no such identity of this person, or the file holds something else.
    """
    path = identity_path(data.folder, speaker, still=still)
    try:
        stored = decode_arrays(path.read_bytes())
    except FileNotFoundError as problem:
        raise InvalidRequestError(f"{path} is missing: {_REMEDY}", field="data") from problem
    model = (models or MorphableModels()).get(model_of_identity(stored))
    return IdentityDrawing(identity_from_arrays(stored, model), model)


class RenderBatch(Protocol):
    """Examples of a pass."""

    @property
    def pictures(self) -> UInt8:
        """Inputs of the network, uint8 [B, 160, 160, C]."""

    @property
    def targets(self) -> UInt8:
        """The footage, uint8 [B, 160, 160, 3]."""


SomeBatch_co = TypeVar("SomeBatch_co", bound=RenderBatch, covariant=True)


class BatchSource(ABC, Generic[SomeBatch_co]):
    """Draws batches from people, each person as often as their share says.

    Args:
        people: the people to draw from.
        seed: random seed.
    """

    def __init__(self, people: People, *, seed: int) -> None:
        self.people = people
        self._noise = LandmarkNoise()
        self._seed = seed

    @abstractmethod
    def batch(self, step: int, index: int, size: int) -> SomeBatch_co:
        """Return a batch of single examples, always the same for the same seed, step and index.

        Args:
            index: number of the batch within the step.
            size: number of examples.
        """

    def _rng(self, step: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, step, index))


def random_row(bank: MouthBank, rng: np.random.Generator) -> int:
    """Return a random row of a bank. Half of the rows come from the 30 % of the frames with the widest mouths.

    Most frames of speech show a mouth that is nearly shut. From these frames alone, a few hundred steps do not teach what is inside
    a mouth.
    """
    if rng.random() >= _WIDE_SHARE:
        return int(rng.integers(bank.num_frames))
    order = np.argsort(mouth_opening(bank.mouth), kind="stable")
    return int(rng.choice(order[-max(1, int(_WIDE * len(order))) :]))


@dataclass(frozen=True, slots=True, eq=False)
class ColourChange:
    """Change of colours that is the same for all pictures of one example.

    Attributes:
        table: uint8 [256], new level for each level: gamma and gain.
        mixing: float32 [3, 3], saturation and white balance. Each row sums to the gain of its channel.
    """

    table: UInt8
    mixing: Float32

    def of(self, picture: UInt8) -> UInt8:
        """Return a picture in these colours: uint8 of the same shape.

        Args:
            picture: uint8 [H, W, 3].
        """
        mixed = cv2.transform(np.ascontiguousarray(picture), self.mixing)
        return np.asarray(cv2.LUT(mixed, self.table), dtype=np.uint8)

    def of_keys(self, keys: KeyPictures) -> KeyPictures:
        """Return key pictures in these colours. Empty key pictures, which have no landmarks, stay as they are."""
        if not keys.landmarks.any():
            return keys
        return KeyPictures(np.stack([self.of(picture) for picture in keys.pictures]), keys.landmarks)


def random_colours(rng: np.random.Generator) -> ColourChange:
    """Return random gamma, gain, saturation and white balance."""
    gamma, gain = np.exp(rng.normal(0.0, 0.25)), np.exp(rng.normal(0.0, 0.12))
    levels = np.linspace(0.0, 1.0, 256) ** gamma * gain
    saturation = np.exp(rng.normal(0.0, 0.25))
    mixing = saturation * np.eye(3) + (1.0 - saturation) * np.array([0.299, 0.587, 0.114])
    return ColourChange(
        np.asarray(np.clip(np.rint(levels * 255.0), 0, 255), dtype=np.uint8),
        np.asarray(np.exp(rng.normal(0.0, 0.06, 3))[:, None] * mixing, dtype=np.float32),
    )


def grey_keys() -> KeyPictures:
    """Return the key pictures of an all-zero state: mid-grey, with no landmarks."""
    return unpacked(np.zeros(STATE_SIZE, np.float32))[1]
