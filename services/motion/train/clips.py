"""Training clips on disk: one file of tracked mouths and one file of speech features per clip.

A training set is a folder with

* `clips/<clip>.safetensors`: `mouth_landmarks` float32 [T, 59, 3] (head space, 25 frames per second), `usable` bool [T]; head poses
  `rotation` [T, 3, 3], `translation` [T, 3] and `scale` [T] for predictors that move the head; metadata `use`, `speaker`,
  `transcript`;
* `features/<clip>.safetensors`: `mel` float32 [T, 4, 80], `posteriorgram` float32 [T, 4, 40], `speech_probability` float32 [T],
  and the further tensors that a predictor hears (types.EXTRA_FEATURES).

Lags that the sync network found are a JSON file: clip -> frames.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from services.common.array_types import Array, Bool, Float32, Float64
from services.common.errors import InvalidRequest
from services.common.geometry.rotations import euler_from_matrix
from services.common.store.tensor_bytes import decode_arrays
from services.motion.features import content_rows, sync_rows
from services.motion.types import EXTRA_FEATURES, Footage, SpeechFeatures


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """One clip with sound and picture on the same frames.

    Attributes:
        name: file name without its ending.
        use: `train`, `val` or `dev`.
        speaker: name of the speaker. A clip without a known speaker has a speaker of its own.
        transcript: words, or an empty text.
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T].
        features: features of the same T frames.
        content: float32 [T, 4, 44], content rows of the features.
        heard: float32 [T, 4, 25], inputs of the sync network.
        poses: float64 [T, 6], head-pose vectors in pixels of the footage. None if the training set has no head poses.
    """

    name: str
    use: str
    speaker: str
    transcript: str
    mouth_landmarks: Float32
    usable: Bool
    features: SpeechFeatures
    content: Float32
    heard: Float32
    poses: Float64 | None = None

    def __len__(self) -> int:
        return len(self.usable)


def shifted(clip: TrainingClip, lag_frames: int) -> TrainingClip:
    """Return the clip without a lag: the sound of frame n + lag moves to the picture of frame n.

    A positive lag means that the sound comes after the picture (docs/coordinates.md).
    """
    if lag_frames == 0:
        return clip
    length = len(clip) - abs(lag_frames)
    picture = slice(max(0, -lag_frames), max(0, -lag_frames) + length)
    sound = slice(max(0, lag_frames), max(0, lag_frames) + length)
    return replace(
        clip,
        mouth_landmarks=clip.mouth_landmarks[picture],
        usable=clip.usable[picture],
        features=clip.features[sound],
        content=clip.content[sound],
        heard=clip.heard[sound],
        poses=None if clip.poses is None else clip.poses[picture],
    )


def load_clips(trainset: Path, *, uses: frozenset[str], lags: Path | None = None, min_usable: float = 0.8) -> list[TrainingClip]:
    """Return the clips of a training set in the order of their names.

    Args:
        trainset: the training set.
        uses: values of `use` to take.
        lags: JSON file of lags to take out. None: no lags.
        min_usable: clips with a smaller share of usable frames are left out.

    Raises:
        InvalidRequest: the training set has no such clip.
    """
    known: dict[str, int] = json.loads(lags.read_text()) if lags else {}
    found = []
    for path in sorted((trainset / "clips").glob("*.safetensors")):
        beside = trainset / "features" / path.name
        named = decode_arrays(path.read_bytes())
        if named.metadata.get("use") not in uses or not beside.is_file():
            continue
        heard = decode_arrays(beside.read_bytes())
        length = min(len(named["usable"]), len(heard["speech_probability"]))
        extra = {name: np.array(heard[name][:length], np.float32) for name in EXTRA_FEATURES if name in heard}
        speech = SpeechFeatures(heard["posteriorgram"][:length], heard["mel"][:length], heard["speech_probability"][:length], extra)
        usable = np.array(named["usable"][:length], dtype=np.bool_)  # copies: views would hold the whole file
        if length < 2 or usable.mean() < min_usable:
            continue
        name = path.stem
        clip = TrainingClip(
            name=name,
            use=named.metadata["use"],
            speaker=named.metadata.get("speaker") or name,
            transcript=named.metadata.get("transcript", ""),
            mouth_landmarks=np.array(named["mouth_landmarks"][:length], dtype=np.float32),
            usable=usable,
            features=speech,
            content=content_rows(speech),
            heard=sync_rows(speech),
            poses=_poses(named.arrays, length),
        )
        found.append(shifted(clip, known.get(name, 0)))
    if not found:
        raise InvalidRequest(f"no clip of use {sorted(uses)} with features in {trainset}", field="trainset")
    return found


def _poses(arrays: Mapping[str, Array], length: int) -> Float64 | None:
    if not {"rotation", "translation", "scale"} <= set(arrays):
        return None
    angles = np.asarray(euler_from_matrix(np.array(arrays["rotation"][:length], np.float64)))
    places = np.array(arrays["translation"][:length, :2], np.float64)
    return np.concatenate([angles, places, np.array(arrays["scale"][:length, None], np.float64)], axis=1)


def by_speaker(clips: list[TrainingClip]) -> dict[str, list[TrainingClip]]:
    """Return the clips of each speaker, with speakers in the order of their names."""
    groups: dict[str, list[TrainingClip]] = {}
    for clip in clips:
        groups.setdefault(clip.speaker, []).append(clip)
    return dict(sorted(groups.items()))


def speaker_weights(clips: list[TrainingClip], exponent: float) -> dict[str, float]:
    """Return the weight of one clip of each speaker, so that a speaker with m clips counts m to the power of `exponent`."""
    return {speaker: float(len(group)) ** (exponent - 1.0) for speaker, group in by_speaker(clips).items()}


def footage_of(clip: TrainingClip, part: slice, *, head_poses: bool) -> Footage:
    """Return a part of a clip as footage.

    Args:
        clip: the clip.
        part: frames to take.
        head_poses: whether the predictor needs head poses.

    Raises:
        InvalidRequest: the training set has no head poses.
    """
    if head_poses and clip.poses is None:
        raise InvalidRequest(f"{clip.name}: the training set holds no head poses", field="trainset")
    return Footage(clip.mouth_landmarks[part], clip.usable[part], None if clip.poses is None else clip.poses[part])
