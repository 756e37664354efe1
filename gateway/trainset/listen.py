"""A clip's sound: samples at 16 kHz, and its features on the motion grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr

from dubstage.client import audio as audio_client
from dubstage.client import rpcs
from gateway.media.sound import SoundReader
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from services.common.array_types import Float32
from services.common.wire.arrays import from_tensor
from services.common.wire.timeline import MOTION_RATE

SAMPLE_RATE_HZ: Final = 16_000
_SAMPLES_A_FRAME: Final = int(SAMPLE_RATE_HZ / MOTION_RATE)
_CHUNK: Final = 1 << 16


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
    """Return the first sound track as float32 mono at 16 kHz, 640 samples per grid frame, sample 0 at the first video frame.

    A clip without sound gives silence. Features are computed from these samples.

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
    """Return the features of float32 samples at 16 kHz.

    Raises:
        DubstageError: from the audio stage.
    """

    requests = audio_client.extract_features.requests(
        sample_rate_hz=SAMPLE_RATE_HZ, timeline=MOTION_RATE, kinds=audio_client.KINDS, num_frames=num_frames
    )
    sent = requests.of_async(audio_client.pieces(samples, _CHUNK))
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
    )
