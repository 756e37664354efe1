"""The audio stage: features of speech, a block for each stretch of video frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from dubstage.audio.v1 import audio_pb2 as pb
from dubstage.client import rpcs
from dubstage.client.arrays import Float32, Times, as_pcm, as_tensor, as_timeline, from_tensor, number_of
from dubstage.client.calls import Requests, stream_call

PIECE_SAMPLES: Final = 8000
"""Samples per channel in one message of `pieces`: half a second at 16 kHz."""
KINDS: Final = ("mel", "mfcc", "posteriorgram", "identity_removed", "speech_states", "speech_states_live")
"""Names of the feature kinds."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of T consecutive video frames. A second axis of 4 is a frame's four rows of 10 ms.

    Attributes:
        first_frame: index of the first of the frames.
        arrays: the kinds that were asked for. "mel": log-mel spectrogram, float32 [T, 4, 80]; "mfcc": 20 MFCC and their deltas,
            float32 [T, 4, 40]; "posteriorgram": phone probabilities, float32 [T, 4, 40]; "identity_removed": cepstra of the global
            speaker, float32 [T, 4, 20]; "speech_states" and "speech_states_live": states of a pretrained speech encoder, in windows
            for whole and for live speech, float32 [T, 192].
        speech_probability: probability that somebody speaks, float32 [T], 0 to 1.
    """

    first_frame: int
    arrays: Mapping[str, Float32]
    speech_probability: Float32

    def __len__(self) -> int:
        """Return the number of video frames."""
        return len(self.speech_probability)

    def __getitem__(self, kind: str) -> Float32:
        """Return the array of a kind.

        Raises:
            KeyError: the kind was not asked for.
        """
        if kind not in self.arrays:
            raise KeyError(f"no {kind!r}; there are: {', '.join(self.arrays)}")
        return self.arrays[kind]


def feature_block(
    arrays: Mapping[str, Float32], speech_probability: Float32 | None = None, *, first_frame: int = 0
) -> pb.AudioFeatureBlock:
    """Return the AudioFeatureBlock message of T video frames.

    Args:
        arrays: float32 [T, ...] by the name of their kind, at least one; see `Features`.
        speech_probability: float32 [T]; None: unset.
        first_frame: index of the first frame.
    """
    count = len(next(iter(arrays.values())))
    block = pb.AudioFeatureBlock(first_frame=first_frame, num_frames=count)
    for kind, array in arrays.items():
        getattr(block, kind).CopyFrom(as_tensor(array, "<f4"))
    if speech_probability is not None:
        block.speech_probability.CopyFrom(as_tensor(speech_probability, "<f4"))
    return block


def as_block(features: Features | pb.AudioFeatureBlock) -> pb.AudioFeatureBlock:
    """Return the AudioFeatureBlock message of features, or the message that was given."""
    if isinstance(features, pb.AudioFeatureBlock):
        return features
    return feature_block(features.arrays, features.speech_probability, first_frame=features.first_frame)


def pieces(samples: Float32, size: int = PIECE_SAMPLES) -> Iterator[Float32]:
    """Yield a sound in pieces of `size` samples per channel; `samples` is float32 [n] or [n, channels]."""
    for first in range(0, len(samples), size):
        yield samples[first : first + size]


def join(blocks: Iterable[Features]) -> Features:
    """Return consecutive blocks as one.

    Raises:
        ValueError: there is no block.
    """
    parts = list(blocks)
    if not parts:
        raise ValueError("no features: the speech is shorter than one video frame")
    arrays = {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0].arrays}
    return Features(parts[0].first_frame, arrays, np.concatenate([part.speech_probability for part in parts]))


def _features(reply: pb.ExtractFeaturesResponse) -> tuple[Features]:
    block = reply.block
    arrays = {kind: from_tensor(getattr(block, kind)) for kind in KINDS if block.HasField(kind)}  # type: ignore[arg-type]
    return (Features(block.first_frame, arrays, from_tensor(block.speech_probability)),)


@stream_call(rpcs.audio.EXTRACT_FEATURES, _features)
def extract_features(
    *,
    sample_rate_hz: int,
    channels: int = 1,
    timeline: Times = Fraction(25),
    kinds: Sequence[str | int] = ("mel", "posteriorgram"),
    num_frames: int = 0,
) -> Requests[Float32 | pb.AudioChunk, pb.ExtractFeaturesRequest]:
    """Yield the Features of a sound that comes in pieces, each block as soon as its look-ahead is there.

    Items are pieces of the sound without gaps: float32 [n] or [n, channels] in [-1, 1], such as `pieces` cuts them. The features do
    not depend on how the sound is cut. The look-ahead is 60 ms, for "speech_states_live" 110 ms, for "speech_states" 2.6 s.

    Args:
        sample_rate_hz: samples per second and channel, 8000 to 192000.
        channels: 1 to 16. Channels are averaged.
        timeline: of the video frames; time zero is where the sound begins.
        kinds: of KINDS, or numbers of FeatureKind.
        num_frames: video frames to answer; frames after the end of the sound see silence. 0: as many as the sound covers.
    """
    config = pb.ExtractFeaturesConfig(
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        timeline=as_timeline(timeline),
        kinds=[number_of(pb.FeatureKind, "FEATURE_KIND_", kind) for kind in kinds],
        num_frames=num_frames,
    )
    sent = 0

    def item(piece: Float32 | pb.AudioChunk) -> pb.ExtractFeaturesRequest:
        nonlocal sent
        if isinstance(piece, pb.AudioChunk):
            return pb.ExtractFeaturesRequest(chunk=piece)
        chunk = pb.AudioChunk(first_sample=sent, pcm_f32=as_pcm(piece, channels))
        sent += len(piece)
        return pb.ExtractFeaturesRequest(chunk=chunk)

    return Requests(pb.ExtractFeaturesRequest(config=config), item)
