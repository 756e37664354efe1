"""Messages of dubstage.audio.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.audio.v1alpha1 import audio_pb2 as pb
from services.audio.extract import FeatureExtractor, collect
from services.audio.identity import IDENTITY_REMOVED_WIDTH
from services.audio.models import AudioModels
from services.audio.types import AudioFeatures, FeatureBlock, FeatureKind, FloatArray
from services.common.arrays import from_tensor, to_tensor
from services.common.errors import InvalidRequest
from services.common.timeline import Timeline
from services.common.timeline_messages import num_frames_from_proto, timeline_from_proto, timeline_to_proto

_KINDS: Final = {
    pb.FEATURE_KIND_MEL: FeatureKind.MEL,
    pb.FEATURE_KIND_MFCC: FeatureKind.MFCC,
    pb.FEATURE_KIND_POSTERIORGRAM: FeatureKind.PPG,
    pb.FEATURE_KIND_IDENTITY_REMOVED: FeatureKind.IDENTITY_REMOVED,
}
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class PcmChunk:
    """Interleaved float32 PCM and the index (a channel) of its first sample."""

    first_sample: int
    interleaved: FloatArray


@dataclass(frozen=True, slots=True)
class FeatureRange:
    """Features of the frames from `first_frame` on."""

    first_frame: int
    features: AudioFeatures


def extractor_from_proto(request: pb.ExtractFeaturesRequest, models: AudioModels) -> FeatureExtractor:
    """The extractor that a stream's first message asks for. The speech probability is always part of the answer.

    Raises:
        InvalidRequest: the first message is not a config, or the config cannot be used.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    kinds = {FeatureKind.SPEECH_PROBABILITY}
    for kind in config.kinds:
        if kind not in _KINDS:
            name = pb.FeatureKind.Name(kind) if kind in pb.FeatureKind.values() else str(kind)
            raise InvalidRequest(f"config.kinds: this stage has no features of kind {name}", field="config.kinds")
        kinds.add(_KINDS[kind])
    timeline = timeline_from_proto(config.timeline, "config.timeline")
    return FeatureExtractor(
        models,
        sample_rate_hz=config.sample_rate_hz,
        channels=config.channels,
        timeline=timeline,
        kinds=frozenset(kinds),
        num_frames=num_frames_from_proto(config.num_frames, timeline, "config.num_frames"),
    )


def config_to_proto(
    *, sample_rate_hz: int, channels: int, timeline: Timeline, kinds: frozenset[FeatureKind], num_frames: int = 0
) -> pb.ExtractFeaturesRequest:
    """The first message of a stream."""
    return pb.ExtractFeaturesRequest(
        config=pb.ExtractFeaturesConfig(
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            timeline=timeline_to_proto(timeline),
            kinds=[number for number, kind in _KINDS.items() if kind in kinds],
            num_frames=num_frames,
        )
    )


def chunk_from_proto(request: pb.ExtractFeaturesRequest) -> PcmChunk:
    """A chunk of PCM; its samples are read-only.

    Raises:
        InvalidRequest: a second config, an empty message, or bytes that are no whole number of float32.
    """
    if not request.HasField("chunk"):
        raise InvalidRequest("chunk: after the config every message must be a chunk of PCM", field="chunk")
    pcm = request.chunk.pcm_f32
    if len(pcm) % _FLOAT_BYTES:
        raise InvalidRequest(f"chunk.pcm_f32: {len(pcm)} bytes are not a whole number of float32", field="chunk.pcm_f32")
    return PcmChunk(request.chunk.first_sample, np.frombuffer(pcm, "<f4"))


def chunk_to_proto(chunk: PcmChunk) -> pb.ExtractFeaturesRequest:
    """The message of a chunk."""
    pcm = np.ascontiguousarray(chunk.interleaved, "<f4").tobytes()
    return pb.ExtractFeaturesRequest(chunk=pb.AudioChunk(first_sample=chunk.first_sample, pcm_f32=pcm))


def blocks_to_proto(blocks: Sequence[FeatureBlock]) -> pb.ExtractFeaturesResponse:
    """The reply with the features of at least one frame; frames follow each other without gap."""
    features = collect(list(blocks))
    block = pb.AudioFeatureBlock(first_frame=blocks[0].frame_index, num_frames=len(blocks))
    if features.mel is not None:
        block.mel.CopyFrom(to_tensor(features.mel))
    if features.mfcc is not None:
        block.mfcc.CopyFrom(to_tensor(features.mfcc))
    if features.ppg is not None:
        block.posteriorgram.CopyFrom(to_tensor(features.ppg))
    if features.speech_probability is not None:
        block.speech_probability.CopyFrom(to_tensor(features.speech_probability))
    if features.identity_removed is not None:
        block.identity_removed.CopyFrom(to_tensor(features.identity_removed))
    return pb.ExtractFeaturesResponse(block=block)


def features_from_proto(response: pb.ExtractFeaturesResponse) -> FeatureRange:
    """The features of a reply; arrays are read-only.

    Raises:
        InvalidRequest: tensors whose shape or type is not the contract's.
    """
    block = response.block
    frames = block.num_frames

    def tensor(name: str, *shape: int) -> FloatArray | None:
        if not block.HasField(name):  # type: ignore[arg-type]  # the names below are fields
            return None
        return from_tensor(getattr(block, name), f"block.{name}", dtype=np.float32, shape=(frames, *shape))

    return FeatureRange(
        block.first_frame,
        AudioFeatures(
            mel=tensor("mel", 4, 80),
            mfcc=tensor("mfcc", 4, 40),
            ppg=tensor("posteriorgram", 4, 40),
            speech_probability=tensor("speech_probability"),
            identity_removed=tensor("identity_removed", 4, IDENTITY_REMOVED_WIDTH),
        ),
    )
