"""Training clips on disk: tracked mouths and speech features of one clip a file.

A training set is a folder with `clips/<clip>.safetensors`: `mouth_landmarks` float32 [T, 59, 3] (head space, 25 frames/s),
`usable` bool [T], the head poses `rotation` [T, 3, 3], `translation` [T, 3] and `scale` [T] where they are learned, and
metadata `use`, `speaker`, `transcript`; and `features/<clip>.safetensors`: `mel` float32 [T, 4, 80], `posteriorgram` float32
[T, 4, 40], `speech_probability` float32 [T] and, for `everybody`, `identity_removed` float32 [T, 4, 20]. Lags found by the sync
network are a JSON file: clip -> frames.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.errors import InvalidRequest
from services.common.geometry.rotations import euler_from_matrix
from services.common.tensor_bytes import decode_arrays
from services.motion.features import content_rows, sync_rows
from services.motion.types import Bool, Float32, SpeechFeatures


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """One clip with sound and picture on the same frames.

    Attributes:
        name: file name without its ending.
        use: `train`, `val` or `dev`.
        speaker: who it is; clips without a known speaker are their own.
        transcript: words, or empty.
        mouth_landmarks: float32 [T, 59, 3], head space.
        usable: bool [T].
        features: of the same T frames.
        content: float32 [T, 4, 44], content rows of the features.
        heard: float32 [T, 4, 25], what the sync network hears of them.
        poses: float64 [T, 6], head-pose vectors, in pixels of the footage; None where the training set has none.
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
    poses: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.usable)


def shifted(clip: TrainingClip, lag_frames: int) -> TrainingClip:
    """The clip with a lag taken out: sound of frame n + lag is laid on picture of frame n.

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
    """Clips of a training set in the order of their names.

    Args:
        trainset: the training set.
        uses: which values of `use` to take.
        lags: JSON file of lags to take out.
        min_usable: share of usable frames below which a clip is left out.

    Raises:
        InvalidRequest: no clip is there.
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
        removed = np.array(heard["identity_removed"][:length], np.float32) if "identity_removed" in heard else None
        speech = SpeechFeatures(
            heard["posteriorgram"][:length], heard["mel"][:length], heard["speech_probability"][:length], removed
        )
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


def _poses(arrays: Mapping[str, npt.NDArray[Any]], length: int) -> npt.NDArray[np.float64] | None:
    if not {"rotation", "translation", "scale"} <= set(arrays):
        return None
    angles = np.asarray(euler_from_matrix(np.array(arrays["rotation"][:length], np.float64)))
    places = np.array(arrays["translation"][:length, :2], np.float64)
    return np.concatenate([angles, places, np.array(arrays["scale"][:length, None], np.float64)], axis=1)


def by_speaker(clips: list[TrainingClip]) -> dict[str, list[TrainingClip]]:
    """Clips of each speaker, speakers in the order of their names."""
    groups: dict[str, list[TrainingClip]] = {}
    for clip in clips:
        groups.setdefault(clip.speaker, []).append(clip)
    return dict(sorted(groups.items()))
