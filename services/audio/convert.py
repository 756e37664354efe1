"""Messages of dubstage.audio.v1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.audio.v1 import audio_pb2 as pb
from dubstage.client import to_tensor
from services.audio.extract import FeatureExtractor, collect
from services.audio.models import KINDS, AudioModels
from services.audio.types import FeatureBlock
from services.audio.voice_activity import SPEECH_PROBABILITY
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.wire.messages import num_frames_from_proto, timeline_from_proto

_ALWAYS: Final = frozenset({SPEECH_PROBABILITY.name})
"""Kinds that are part of every answer and have no number in the contract."""
_KINDS: Final = {pb.FeatureKind.Value(f"FEATURE_KIND_{name.upper()}"): name for name in KINDS if name not in _ALWAYS}
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class PcmChunk:
    """Interleaved float32 PCM, and the index of the first sample per channel."""

    first_sample: int
    interleaved: Float32


def extractor_from_proto(request: pb.ExtractFeaturesRequest, models: AudioModels) -> FeatureExtractor:
    """Return the extractor for a stream's first message. The speech probability is always part of the answer.

    Raises:
        InvalidRequestError: the first message is not a config, or the config cannot be used.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    kinds = set(_ALWAYS)
    for kind in config.kinds:
        if kind not in _KINDS:
            name = pb.FeatureKind.Name(kind) if kind in pb.FeatureKind.values() else str(kind)
            raise InvalidRequestError(f"config.kinds: this stage has no features of kind {name}", field="config.kinds")
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


def chunk_from_proto(request: pb.ExtractFeaturesRequest) -> PcmChunk:
    """Return a chunk of PCM. The samples are read-only.

    Raises:
        InvalidRequestError: the message is a second config or empty, or its bytes are no whole number of float32.
    """
    if not request.HasField("chunk"):
        raise InvalidRequestError("chunk: after the config every message must be a chunk of PCM", field="chunk")
    pcm = request.chunk.pcm_f32
    if len(pcm) % _FLOAT_BYTES:
        raise InvalidRequestError(f"chunk.pcm_f32: {len(pcm)} bytes are not a whole number of float32", field="chunk.pcm_f32")
    return PcmChunk(request.chunk.first_sample, np.frombuffer(pcm, "<f4"))


def blocks_to_proto(blocks: Sequence[FeatureBlock]) -> pb.ExtractFeaturesResponse:
    """Return the reply with the features of at least one frame. The frames follow each other without gap."""
    block = pb.AudioFeatureBlock(first_frame=blocks[0].frame_index, num_frames=len(blocks))
    for name, features in collect(blocks, blocks[0].features.keys()).items():
        getattr(block, name).CopyFrom(to_tensor(features))
    return pb.ExtractFeaturesResponse(block=block)
