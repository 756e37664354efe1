"""A clip's sound: samples at 16 kHz, and its features on the motion grid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from services.common.arrays import from_tensor
from services.common.timeline import MOTION_RATE

Float32 = npt.NDArray[np.float32]

SAMPLE_RATE_HZ: Final = 16_000
_SAMPLES_A_FRAME: Final = int(SAMPLE_RATE_HZ / MOTION_RATE)
_CHUNK: Final = 1 << 16
_KINDS: Final = (
    audio_pb2.FEATURE_KIND_MEL,
    audio_pb2.FEATURE_KIND_MFCC,
    audio_pb2.FEATURE_KIND_POSTERIORGRAM,
    audio_pb2.FEATURE_KIND_IDENTITY_REMOVED,
)


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """Features of T frames of the motion grid.

    Attributes:
        mel: float32 [T, 4, 80].
        mfcc: float32 [T, 4, 40].
        posteriorgram: float32 [T, 4, 40].
        identity_removed: float32 [T, 4, 20].
        speech_probability: float32 [T].
    """

    mel: Float32
    mfcc: Float32
    posteriorgram: Float32
    identity_removed: Float32
    speech_probability: Float32


def read_samples(info: MediaInfo, num_frames: int) -> Float32:
    """The first sound track as float32 mono at 16 kHz, 640 samples a grid frame, sample 0 at the first video frame.

    Silence where the clip has no sound. Its features are computed from these samples, so that both agree.

    Raises:
        MediaUnsupported: the sound cannot be decoded.
    """
    wanted = num_frames * _SAMPLES_A_FRAME
    if not info.audio:
        return np.zeros(wanted, np.float32)
    sound = SoundReader(info.path, origin=info.video.start)
    parts = [chunk.samples.mean(axis=1, dtype=np.float32) for chunk in sound]
    mono = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    resampled = np.asarray(soxr.resample(mono, sound.info.sample_rate_hz, SAMPLE_RATE_HZ, quality="VHQ"), dtype=np.float32)
    return np.clip(np.pad(resampled, (0, max(0, wanted - len(resampled))))[:wanted], -1.0, 1.0)


async def extract_features(stages: Stages, samples: Float32, num_frames: int) -> ClipFeatures:
    """Features of float32 samples at 16 kHz.

    Raises:
        DubstageError: from the audio stage.
    """

    async def requests() -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
        rate = Fraction(MOTION_RATE)
        yield audio_pb2.ExtractFeaturesRequest(
            config=audio_pb2.ExtractFeaturesConfig(
                sample_rate_hz=SAMPLE_RATE_HZ,
                channels=1,
                timeline=common_pb2.Timeline(frame_rate=common_pb2.Rational(num=rate.numerator, den=rate.denominator)),
                kinds=_KINDS,
                num_frames=num_frames,
            )
        )
        for first in range(0, len(samples), _CHUNK):
            pcm = np.ascontiguousarray(samples[first : first + _CHUNK], dtype="<f4").tobytes()
            yield audio_pb2.ExtractFeaturesRequest(chunk=audio_pb2.AudioChunk(first_sample=first, pcm_f32=pcm))

    blocks = [reply.block async for reply in stages.extract_features(requests())]

    def joined(name: str, shape: tuple[int, ...]) -> Float32:
        parts = [from_tensor(getattr(block, name), name, dtype=np.float32, shape=(block.num_frames, *shape)) for block in blocks]
        return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)

    return ClipFeatures(
        joined("mel", (4, 80)),
        joined("mfcc", (4, 40)),
        joined("posteriorgram", (4, 40)),
        joined("identity_removed", (4, 20)),
        joined("speech_probability", ()),
    )
