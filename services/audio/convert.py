"""Messages of dubstage.audio.v1 to and from the stage's own types, with validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.audio.v1 import audio_pb2 as pb
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from services.audio.extract import ExtractorState, FeatureExtractor, collect
from services.audio.models import KINDS, AudioModels
from services.audio.types import FeatureBlock
from services.audio.voice_activity import SPEECH_PROBABILITY, STATE_S, STATE_SHAPE, VoiceState
from services.common.array_types import Array, Float32
from services.common.errors import InvalidRequestError
from services.common.wire.convert import num_frames_from_proto, timeline_from_proto
from services.common.wire.stream_state import StateColumn, state_from_proto
from services.common.wire.stream_state import state_to_proto as wire_state_to_proto
from services.common.wire.timeline import Timeline

_ALWAYS: Final = frozenset({SPEECH_PROBABILITY.name})
"""Kinds that are part of every answer and have no number in the contract."""
_KINDS: Final = {pb.FeatureKind.Value(f"FEATURE_KIND_{name.upper()}"): name for name in KINDS if name not in _ALWAYS}
_FLOAT_BYTES: Final = 4
_LAYOUT: Final = 1
_COLUMNS: Final = {
    "stream": StateColumn(np.int64, (2,), 0, 1 << 30),
    "voice.hidden": StateColumn(np.float32, STATE_SHAPE, -1.0, 1.0),
    "voice.cell": StateColumn(np.float32, STATE_SHAPE, -1e6, 1e6),
}
"""Arrays of a state. `stream`: second of the state, and next frame."""


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
        resume=_state_from_proto(config.resume, timeline) if config.HasField("resume") else None,
    )


def _state_from_proto(message: common_pb2.StreamState, timeline: Timeline) -> ExtractorState:
    field = "config.resume"
    arrays = state_from_proto(message, _LAYOUT, _COLUMNS, field)
    second, next_frame = arrays["stream"].tolist()
    timeline_frames = timeline.num_frames
    if (
        second < STATE_S
        or second % STATE_S
        or (timeline_frames is not None and next_frame >= timeline_frames)
        or timeline.seconds(next_frame) < second
    ):
        raise InvalidRequestError(
            f"{field}.stream: frame {next_frame} does not follow a state at {second} s: give the state of a call with the same "
            "config",
            field=f"{field}.stream",
        )
    return ExtractorState(VoiceState(second, arrays["voice.hidden"], arrays["voice.cell"]), next_frame)


def state_to_proto(state: ExtractorState, resume_from: int) -> pb.ExtractFeaturesResponse:
    """Return the reply with a state, and with the sample that a call that goes on from the state begins with."""
    arrays: dict[str, Array] = {
        "stream": np.array([state.voice.second, state.next_frame], np.int64),
        "voice.hidden": state.voice.hidden,
        "voice.cell": state.voice.cell,
    }
    return pb.ExtractFeaturesResponse(state=wire_state_to_proto(arrays, _LAYOUT), resume_from=resume_from)


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
