"""A clip's sound: samples at 16 kHz in pieces of a minute, and features on the motion grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from dubstage.client import audio as audio_client
from dubstage.client import rpcs
from gateway.media.sound import SoundReader
from gateway.stages.interface import Stages
from services.common.array_types import Float32
from services.common.wire.arrays import from_tensor
from services.common.wire.timeline import MOTION_RATE

SAMPLE_RATE_HZ: Final = 16_000
SAMPLES_A_FRAME: Final = int(SAMPLE_RATE_HZ / MOTION_RATE)
PIECE_FRAMES: Final = int(60 * MOTION_RATE)
"""Longest piece of a film or recording that becomes a clip, grid frames: a minute. The pictures of a minute take 115 MB, and a
forced alignment of more loses its way."""
FULL_SCALE: Final = 32767
_CHUNK: Final = 1 << 16

Int16 = npt.NDArray[np.int16]


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
        MediaUnsupported: the sound cannot be decoded.
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
        yield fitted(np.concatenate(held), round(count / SAMPLES_A_FRAME))


def fitted(samples: Int16, num_frames: int) -> Int16:
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
