"""Training clips: sound and picture of a clip on the same frames, read from a training set when they are needed.

Content rows are augmented: other moments, phones that look alike, sharpness, blur, and energy of other recordings.

Batches have balanced speakers and rows at another tempo, and are copied to the device in advance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Final, overload

import numpy as np
import torch
from torch import Tensor

from gateway.dub.analyse.motion_clip import MotionClip, moved_later
from research.training.trainset import CACHE_BYTES, BoundedCache, ClipRow, TrainSet
from services.common.array_types import Bool, Float32, Float64, Floating
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.common.geometry.rotations import euler_from_matrix
from services.motion.features import LOOK_ALIKE, bilabial_probability, content_rows, sync_rows
from services.motion.lag import LAG_STATES, MIN_FRAMES, LagModel, peak_fraction
from services.motion.types import MAX_LAG, NUM_PHONES, Footage, SpeechFeatures

MIN_USABLE: Final = 0.8
"""Clips with a smaller share of usable frames are left out."""
MIN_USABLE_FRAMES: Final = MIN_FRAMES + 6
"""Fewest usable frames of a clip: a lag can still be estimated (lag.MIN_FRAMES) after a check of the sync network cut off six."""
LENGTH_TOLERANCE: Final = 2
"""Largest difference of the lengths of a clip's track and of its sound, frames."""
_TRACK: Final = ("mouth_landmarks", "usable", "rotation", "translation", "scale")
_SPEECH: Final = ("posteriorgram", "mel", "speech_probability")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentAugmentation:
    """Settings of the augmentation of content rows."""

    sharpness_range: tuple[float, float] = (0.7, 1.5)
    confusion: float = 0.15
    """Largest share of another moment's posteriorgram that is mixed in."""
    grouping: float = 0.6
    """Largest share of a phone's probability that is spread over phones that look like that phone."""
    blur: float = 0.3
    """Chance that a posteriorgram is blurred in time."""
    band_tilt: float = 0.3
    """Standard deviation of the offset of each relative energy band."""
    band_gain: tuple[float, float] = (0.6, 1.4)
    level: float = 0.4
    """Standard deviation of the common offset of all bands, which stands for another history of the stream."""


def augmented(content: Float32, rows: Float32, settings: ContentAugmentation, rng: np.random.Generator) -> Float32:
    """Return augmented content rows, float32 [R, 44].

    Args:
        content: float32 [R, 44], rows of a span of speech, see features.content_rows.
        rows: float32 [S, 44], S > R, all rows of the clip.
        settings: strength of the augmentation.
        rng: random numbers. The same state gives the same rows.
    """
    phones = content[:, :NUM_PHONES]
    other = rows[rng.integers(len(rows) - len(content)) :][: len(content), :NUM_PHONES]
    phones = phones + np.float32(rng.uniform(0.0, settings.confusion)) * (other - phones)
    phones = phones + np.float32(rng.uniform(0.0, settings.grouping)) * (phones @ LOOK_ALIKE - phones)
    phones = np.maximum(phones, np.float32(1e-4)) ** np.float32(rng.uniform(*settings.sharpness_range))
    phones = phones / phones.sum(axis=1, keepdims=True)
    if rng.random() < settings.blur:
        phones[1:-1] = 0.25 * phones[:-2] + 0.5 * phones[1:-1] + 0.25 * phones[2:]
    tilt = rng.normal(0.0, settings.band_tilt, content.shape[1] - NUM_PHONES) + rng.normal(0.0, settings.level)
    energy = content[:, NUM_PHONES:] * rng.uniform(*settings.band_gain) + tilt
    return np.concatenate([phones, energy], axis=1).astype(np.float32)


def frame_weights(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return the weight of each frame of each clip, float64 [N]: w_i F_s^(exponent - 1), where F_s counts the frames of speaker s.

    So a speaker counts F_s to the power of `exponent`: 1 lets frames count equally, 0 lets speakers count equally. The weight w_i
    is not balanced away: a corpus of half the weight counts half.

    Args:
        rows: the clips' rows. A row's weight is w_i.
    """
    frames: dict[str, int] = {}
    for row in rows:
        frames[row.speaker] = frames.get(row.speaker, 0) + row.usable_frames
    return np.array([row.weight * frames[row.speaker] ** (exponent - 1.0) for row in rows], np.float64)


def clip_chances(rows: Sequence[ClipRow], exponent: float) -> Float64:
    """Return how often each clip is drawn, float64 [N]: the weights of its frames together, see frame_weights."""
    return frame_weights(rows, exponent) * np.array([row.usable_frames for row in rows], np.float64)


class Draw:
    """Random choice of a number from 0 to N - 1 in proportion to weights, float64 [N]."""

    def __init__(self, weights: Float64) -> None:
        self._sums = np.cumsum(weights / weights.sum())

    def __call__(self, rng: np.random.Generator) -> int:
        """Draw a number."""
        return min(int(np.searchsorted(self._sums, rng.random(), side="right")), len(self._sums) - 1)


def rows_between(values: Floating, positions: Floating) -> Float32:
    """Return rows at positions between the rows of values, by linear interpolation: float32 [N, ...].

    Args:
        values: float [T, ...], T >= 2.
        positions: float [N], counted in rows, not negative. Beyond the last row the last row holds.
    """
    low = np.minimum(positions.astype(np.intp), len(values) - 2)
    share = np.clip(positions - low, 0.0, 1.0).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray((1.0 - share) * values[low] + share * values[low + 1], np.float32)


def batch_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """Return the random numbers of one batch. They depend on nothing but these three numbers."""
    return np.random.default_rng((seed, step, index))


def tensors(arrays: Iterable[Float32 | Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield arrays as tensors on a device."""
    for array in arrays:
        yield torch.as_tensor(array).to(device)


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """One clip with sound and picture on the same frames.

    Attributes:
        name: name of the clip in the training set.
        split: `train`, `val` or `dev`.
        speaker: name of the speaker.
        mouth_landmarks: float32 [T, 59, 3], head space, 25 frames per second.
        usable: bool [T].
        features: features of the same T frames.
        content: float32 [T, 4, 44], content rows of the features.
        sync_inputs: float32 [T, 4, 25], inputs of the sync network.
        poses: float64 [T, 6], head-pose vectors in pixels of the footage.
        apart: name of the narrow corpus that the clip belongs to; empty: no narrow corpus.
        lag_fraction: part of a frame by which the sound still comes after the picture, from -1/2 to 1/2; 0 if not measured.
    """

    name: str
    split: str
    speaker: str
    mouth_landmarks: Float32
    usable: Bool
    features: SpeechFeatures
    content: Float32
    sync_inputs: Float32
    poses: Float64
    apart: str = ""
    lag_fraction: float = 0.0

    def __len__(self) -> int:
        return len(self.usable)


def closed_frames(clip: TrainingClip) -> tuple[Bool, float]:
    """Return where a bilabial sounds and the true lips are shut, bool [T], and the opening of the shut mouth, crop pixels."""
    opening = mouth_opening(clip.mouth_landmarks)
    low, high = np.percentile(opening[clip.usable], [8, 90])
    return (bilabial_probability(clip.features) > 0.5) & clip.usable & (opening < low + 0.2 * (high - low)), float(low)


def shifted(clip: TrainingClip, lag_frames: int) -> TrainingClip:
    """Return the clip without a lag: the sound of frame n + lag moves to the picture of frame n.

    A positive lag means that the sound comes after the picture (docs/coordinates.md).
    """
    if lag_frames == 0:
        return clip
    return _parts(clip, _kept(clip, -lag_frames), _kept(clip, lag_frames))


def as_filmed(clip: TrainingClip, lag_frames: int) -> TrainingClip:
    """Return the picture frames of `shifted` with the sound that was recorded with them: the lag stays."""
    picture = _kept(clip, -lag_frames)
    return _parts(clip, picture, picture)


def _kept(clip: TrainingClip, begin: int) -> slice:
    """Return the frames that a lag of -begin or of begin frames leaves of the picture or of the sound."""
    return slice(max(0, begin), len(clip) + min(0, begin))


def _parts(clip: TrainingClip, picture: slice, sound: slice) -> TrainingClip:
    return replace(
        clip,
        mouth_landmarks=clip.mouth_landmarks[picture],
        usable=clip.usable[picture],
        features=clip.features[sound],
        content=clip.content[sound],
        sync_inputs=clip.sync_inputs[sound],
        poses=clip.poses[picture],
    )


def on_time(clip: TrainingClip, late_frames: float) -> TrainingClip:
    """Return the clip with mouths and head poses moved earlier by a time, frames. Negative: later."""
    whole = math.floor(late_frames + 0.5)
    fraction = late_frames - whole
    near = shifted(clip, -whole)
    moved = moved_later(MotionClip(near.mouth_landmarks, near.usable, near.poses), -fraction)
    return replace(near, mouth_landmarks=moved.mouth, usable=moved.usable, poses=moved.poses)


def with_lag_fraction(clip: TrainingClip, model: LagModel) -> TrainingClip:
    """Return a clip with the part of a frame by which its sound still comes after its picture, measured on the whole clip.

    Args:
        clip: clip without whole frames of lag, with the states of the speech encoder (LAG_STATES).
        model: filters that measure the lag.
    """
    if int(clip.usable.sum()) < MIN_FRAMES:
        return clip
    scores = model.scores(clip.features.extra[LAG_STATES], clip.mouth_landmarks, clip.usable)
    return replace(clip, lag_fraction=peak_fraction(scores, MAX_LAG))


def read_clip(data: TrainSet, row: ClipRow, extra: Sequence[str] = (), *, filmed: bool = False) -> TrainingClip:
    """Return a clip without its lag.

    Args:
        row: the clip's row.
        extra: further tensors of the sound to read (types.EXTRA_FEATURES).
        filmed: whether the lag stays (as_filmed).

    Raises:
        InvalidRequestError: a file of the clip is missing or damaged, or track and sound differ in length.
    """
    track, sound = data.arrays(row, "track", _TRACK), read_sound(data, row, extra)
    lengths = len(track["usable"]), len(sound)
    length = min(lengths)
    if max(lengths) - length > LENGTH_TOLERANCE:
        raise InvalidRequestError(
            f"{data.folder}: clip {row.name} has {lengths[0]} frames of track and {lengths[1]} of sound; make the clip again: "
            "delete its files and call `dubstage trainset` again",
            field="data",
        )
    features = sound[:length]
    clip = TrainingClip(
        name=row.name,
        split=row.split,
        speaker=row.speaker,
        mouth_landmarks=np.asarray(track["mouth_landmarks"][:length], np.float32),
        usable=np.asarray(track["usable"][:length], np.bool_),
        features=features,
        content=content_rows(features),
        sync_inputs=sync_rows(features),
        poses=pose_vectors(track["rotation"][:length], track["translation"][:length], track["scale"][:length]),
        apart=row.source if row.narrow else "",
    )
    return (as_filmed if filmed else shifted)(clip, row.lag_frames)


def read_sound(data: TrainSet, row: ClipRow, extra: Sequence[str] = ()) -> SpeechFeatures:
    """Return the features of a clip's sound, with its lag.

    Args:
        row: the clip's row.
        extra: further tensors of the sound to read (types.EXTRA_FEATURES).

    Raises:
        InvalidRequestError: the file of the sound is missing or damaged.
    """
    speech = {name: np.asarray(values, np.float32) for name, values in data.arrays(row, "speech", (*_SPEECH, *extra)).items()}
    return SpeechFeatures(
        speech["posteriorgram"], speech["mel"], speech["speech_probability"], {name: speech[name] for name in extra}
    )


def pose_vectors(rotation: Float64, translation: Float64, scale: Float64) -> Float64:
    """Return head-pose vectors float64 [T, 6] (services.common.face.crops).

    Args:
        rotation: float64 [T, 3, 3].
        translation: float64 [T, 3], pixels of the footage.
        scale: float64 [T], pixels of the footage per head-space pixel.
    """
    return np.concatenate([np.asarray(euler_from_matrix(rotation)), translation[:, :2], scale[:, None]], axis=1)


class Clips(Sequence[TrainingClip]):
    """Clips that are read when they are asked for. A bounded number of bytes stays in memory.

    Args:
        held: the clips by their rows. Parts of a sequence share this memory.
    """

    def __init__(self, rows: Iterable[ClipRow], held: BoundedCache[ClipRow, TrainingClip]) -> None:
        self.rows = tuple(rows)
        self._held = held

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> TrainingClip: ...
    @overload
    def __getitem__(self, index: slice) -> Clips: ...
    def __getitem__(self, index: int | slice) -> TrainingClip | Clips:
        if isinstance(index, slice):
            return Clips(self.rows[index], self._held)
        return self._held[self.rows[index]]

    def only(self, rows: Iterable[ClipRow]) -> Clips:
        """Return the clips of other rows of the same training set."""
        return Clips(rows, self._held)

    def moved(self, change: Callable[[TrainingClip], TrainingClip]) -> Clips:
        """Return the clips, each changed when it is read."""
        return Clips(self.rows, BoundedCache(lambda row: change(self._held[row]), array_bytes, CACHE_BYTES // 4))

    def by_speaker(self) -> dict[str, Clips]:
        """Return the clips of each speaker, with speakers in the order of their names."""
        groups: dict[str, list[ClipRow]] = {}
        for row in self.rows:
            groups.setdefault(row.speaker, []).append(row)
        return {speaker: self.only(rows) for speaker, rows in sorted(groups.items())}

    def evenly(self, count: int) -> Clips:
        """Return at most `count` clips, evenly spread over the rows."""
        if len(self) <= count:
            return self
        return self.only(self.rows[int(position)] for position in np.linspace(0, len(self) - 1, count).round())

    def chosen(self, count: int, seed: int) -> Clips:
        """Return at most `count` clips in the order of the rows; a larger sequence gives every speaker the same chance.

        The choice takes one random clip of each speaker, then a second clip of each speaker, and so on.
        """
        if len(self) <= count:
            return self
        rng = np.random.default_rng((seed, len(self)))
        ranks: dict[ClipRow, tuple[int, float]] = {}
        for group in self.by_speaker().values():
            for rank, index in enumerate(rng.permutation(len(group))):
                ranks[group.rows[index]] = rank, float(rng.random())
        first = set(sorted(ranks, key=ranks.__getitem__)[:count])
        return self.only(row for row in self.rows if row in first)


def clips_of(data: TrainSet, split: str, extra: Sequence[str] = (), max_bytes: int = CACHE_BYTES // 4) -> Clips:
    """Return the clips of a split that show the mouth well.

    Args:
        extra: further tensors of the sound to read (types.EXTRA_FEATURES).
        max_bytes: most memory of the clips that were read.

    Raises:
        InvalidRequestError: there is no such clip.
    """
    rows = [row for row in data.of(split, face=True) if shows_the_mouth(row)]
    if not rows:
        raise InvalidRequestError(
            f"{data.folder}: no clip of split {split!r} shows the mouth in {MIN_USABLE_FRAMES} frames and in {MIN_USABLE:.0%} of "
            "all frames; add clips of at least 2 s with a face from the front, and complete the set with `dubstage trainset`",
            field="data",
        )
    return clips_of_rows(data, rows, extra, max_bytes)


def clips_of_rows(
    data: TrainSet, rows: Iterable[ClipRow], extra: Sequence[str] = (), max_bytes: int = CACHE_BYTES // 4, *, filmed: bool = False
) -> Clips:
    """Return the clips of rows of a training set. Arguments: see clips_of and read_clip."""
    return Clips(rows, BoundedCache(lambda row: read_clip(data, row, extra, filmed=filmed), array_bytes, max_bytes))


def speakers_of_free_speech(rows: Iterable[ClipRow], least: int = 2) -> list[str]:
    """Return the speakers with a face who are of no narrow corpus, by name.

    Args:
        rows: rows of the split `train`.
        least: fewest speakers that are needed.

    Raises:
        InvalidRequestError: there are fewer.
    """
    speakers = sorted({row.speaker for row in rows if row.has_face and not row.narrow})
    if len(speakers) < least:
        needed = "two" if least == 2 else str(least)
        raise InvalidRequestError(
            f"{len(speakers)} speakers of free speech in the split 'train'; at least {needed} are needed", field="data"
        )
    return speakers


def held_out_splits(data: TrainSet) -> list[str]:
    """Return the splits with faces that nothing is learned from, by name."""
    return sorted({row.split for row in data.rows if row.has_face} - {"train"})


def shows_the_mouth(row: ClipRow) -> bool:
    """Return whether a clip shows the mouth in enough of its frames, and is to be drawn at all."""
    usable = row.usable_frames - abs(row.lag_frames)
    return usable >= MIN_USABLE_FRAMES and row.usable_frames >= MIN_USABLE * row.frames and row.weight > 0.0


def length_of(row: ClipRow) -> int:
    """Return the number of frames that a clip has at least, once its lag is taken out."""
    return row.frames - abs(row.lag_frames) - LENGTH_TOLERANCE


def array_bytes(value: object) -> int:
    """Return the memory of all arrays in a value, bytes: an array, or a dataclass or mapping of such values."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(array_bytes(each) for each in value.values())
    if is_dataclass(value):
        return sum(array_bytes(getattr(value, each.name)) for each in fields(value))
    return 0


def footage_of(clip: TrainingClip, part: slice) -> Footage:
    """Return a part of a clip as footage.

    Args:
        part: frames to take.
    """
    return Footage(clip.mouth_landmarks[part], clip.usable[part], clip.poses[part])


def synced_footage_of(clip: TrainingClip, part: slice) -> Footage:
    """Return a part of a clip as footage whose mouths lie at the times of the sound, as an enrolment personalises on them."""
    moved = moved_later(MotionClip(clip.mouth_landmarks[part], clip.usable[part], clip.poses[part]), clip.lag_fraction)
    return Footage(moved.mouth, moved.usable, moved.poses)
