"""Sync distance (Song et al. 2023, Sec. IV): distance between mouth and sound by the sync network of the motion stage.

The module also tracks faces in crops, for measures on rendered mouths.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from dubstage.client import motion as motion_client
from dubstage.client import rpcs, to_image
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from gateway.dub.sound.speech import extract_features, feature_block, motion_frames_for
from gateway.dub.state.records import FEATURE_RECORD, RecordFile
from gateway.media import sound
from gateway.reports.records import face_distance
from research.evaluation.types import EvaluatedSpeech, FrameRange
from research.stage_host import StageHost
from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.errors import NoUsableFootageError
from services.common.face.crops import fit_head_pose, to_head_space
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS
from services.common.methods import LAG_FEATURES
from services.common.wire.convert import from_tensor, rational_to_proto
from services.common.wire.timeline import MOTION_RATE

_SPEECH_RATE_HZ: Final = 16_000
_RATE: Final = float(MOTION_RATE)


class StageRetrack:
    """Face tracker for crops: the face stage without smoothing."""

    def __init__(self, host: StageHost) -> None:
        self._host = host

    def __call__(self, crops: UInt8) -> Float32:
        """Return the landmarks of crops, float32 [T, 478, 3]; NaN: the crop shows no face.

        Args:
            crops: uint8 [T, 256, 256, 3], RGB.

        Raises:
            DubstageError: from the face stage.
        """
        return self._host.run(self._track(crops))

    async def _track(self, crops: UInt8) -> Float32:
        async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
            timeline = common_pb2.Timeline(frame_rate=rational_to_proto(Fraction(MOTION_RATE)))
            config = face_pb2.TrackConfig(timeline=timeline, max_faces=1, smoothing_half_width=0)
            yield face_pb2.TrackRequest(config=config)
            for index, crop in enumerate(crops):
                chunk = face_pb2.FrameChunk(frame_index=index, image=to_image(np.ascontiguousarray(crop)))
                yield face_pb2.TrackRequest(frame=chunk)

        landmarks = np.full((len(crops), NUM_LANDMARKS, 3), np.nan, np.float32)
        async for reply in self._host.stages.stream(rpcs.face.TRACK, requests()):
            for frame in reply.frames:
                if frame.faces:
                    landmarks[frame.frame_index] = from_tensor(
                        frame.faces[0].landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)
                    )
        return landmarks


class StageFaceDistance:
    """Distance of faces by the embedding network of the face stage."""

    def __init__(self, host: StageHost) -> None:
        self._host = host

    def __call__(self, truth: UInt8, result: UInt8) -> float:
        """Return the distance of the mean embeddings of truth and result; NaN: no face is found.

        Args:
            truth, result: uint8 [T, 256, 256, 3], RGB, T >= 1.

        Raises:
            DubstageError: from the face stage.
        """
        return self._host.run(face_distance(self._host.stages, truth, result))


def mouths_on_grid(landmarks: Float32, seconds: Float64) -> tuple[int, Float32, Bool]:
    """Return the mouths of tracked crops on the motion grid.

    Args:
        landmarks: float32 [T, 478, 3], crop pixels, NaN rows where not tracked.
        seconds: float64 [T], presentation times, increasing.

    Returns:
        The grid frame of the first row; the mouths, float32 [N, 59, 3], head space; and bool [N], whether the tracked frames on
        both sides are near enough. N is 0 if fewer than two frames are tracked.
    """
    (rows,) = np.nonzero(np.isfinite(landmarks[:, 0, 0]))
    if len(rows) < 2:
        return 0, np.zeros((0, len(MOUTH_AREA), 3), np.float32), np.zeros(0, np.bool_)
    mouths = np.stack([to_head_space(mesh[list(MOUTH_AREA)], fit_head_pose(mesh)) for mesh in landmarks[rows]])
    times = seconds[rows]
    first, last = int(np.ceil(times[0] * _RATE - 1e-6)), int(np.floor(times[-1] * _RATE + 1e-6))
    grid = np.arange(first, last + 1) / _RATE
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    gap = times[right] - times[right - 1]
    weight = np.clip((grid - times[right - 1]) / gap, 0.0, 1.0)[:, None, None]
    mixed = mouths[right - 1] * (1.0 - weight) + mouths[right] * weight
    return first, np.asarray(mixed, np.float32), np.asarray(gap <= 2.5 / _RATE, np.bool_)


class StageSyncDistance:
    """`SyncDistance` by EstimateLag of the motion stage: mean distance of the embeddings at the lag that fits best.

    Args:
        host: runs the stages.
        speech: speech of the clip, float32 [N], 16 kHz mono.
        seconds: float64 [T], presentation time of every frame of the clip from the first frame.
        folder: folder for feature files.
    """

    def __init__(self, host: StageHost, speech: Float32, seconds: Float64, folder: Path) -> None:
        self._host = host
        self._own = EvaluatedSpeech("", speech)
        self._seconds = seconds
        self._file = folder / "sync.features"
        self._features: dict[str, Array] = {}

    def __call__(self, landmarks: Float32, frames: FrameRange, speech: EvaluatedSpeech | None) -> float:
        """Return the distance over one range of frames; NaN: too few of the frames are tracked."""
        first, mouths, usable = mouths_on_grid(landmarks, self._seconds[frames.start : frames.stop])
        features = self._features_of(speech or self._own)[first : first + len(mouths)]
        count = len(features)
        if count == 0:
            return float("nan")
        request = motion_client.estimate_lag.request(
            features=feature_block(features, 0, LAG_FEATURES), mouth_landmarks=mouths[:count], usable=usable[:count]
        )
        try:
            return float(self._host.run(self._host.stages.unary(rpcs.motion.ESTIMATE_LAG, request)).distance)
        except NoUsableFootageError:
            return float("nan")

    def _features_of(self, speech: EvaluatedSpeech) -> Array:
        if speech.name not in self._features:
            self._features[speech.name] = self._host.run(self._extract(speech.samples))
        return self._features[speech.name]

    async def _extract(self, samples: Float32) -> Array:
        duration = Fraction(len(samples), _SPEECH_RATE_HZ)
        with RecordFile(self._file, FEATURE_RECORD) as features:
            features.clear()
            spoken = sound.Speech(_SPEECH_RATE_HZ, 1, [samples[:, None]])
            await extract_features(self._host.stages, spoken, features, motion_frames_for(duration), duration, LAG_FEATURES)
            return features.read(0, features.num_rows)
