"""Messages of live streams to and from the gateway's own types, with validation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.actor_id import check_actor_id
from gateway.consent.use import ConsentUse, use_of
from gateway.live.arrival import first_sample
from gateway.live.session import LiveFrame
from services.common.array_types import Float32
from services.common.errors import InvalidRequest, MessageTooLarge
from services.common.wire.arrays import to_rgb_image

LIVE_RATES_HZ: Final = range(8_000, 192_001)
"""Sample rates of the sound of a live stream."""
LIVE_CHANNELS: Final = range(1, 9)
"""Numbers of channels of the sound of a live stream."""
LEAST_LATE_MS: Final = 300
"""Least lateness, milliseconds, for which a stream may ask that frames are left out: the time within which frames come."""
MAX_LIVE_SECONDS_A_MESSAGE: Final = 10
"""Most seconds of sound in one message."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Config of a live stream.

    Attributes:
        actor_id: actor that the stream shows.
        sample_rate_hz: sample rate of the sound.
        channels: number of channels of the sound.
        use: project and language of the stream.
        first_frame: first frame that is wanted.
        max_late_s: seconds after the arrival of its sound until which a frame is sent; None: every frame is sent.
        expressiveness: factor of the mouth's movement.
    """

    actor_id: str
    sample_rate_hz: int
    channels: int
    use: ConsentUse = ConsentUse()
    first_frame: int = 0
    max_late_s: float | None = None
    expressiveness: float = 1.0


def live_options_from(request: pb.LiveRequest | None) -> LiveOptions:
    """Return the config that begins a live stream.

    Raises:
        InvalidRequest: the first message holds no config, or a value of the config cannot be used.
    """
    if request is None or not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    if config.sample_rate_hz not in LIVE_RATES_HZ:
        raise InvalidRequest(
            f"config.sample_rate_hz: {config.sample_rate_hz} is not within 8000 .. 192000", field="config.sample_rate_hz"
        )
    if config.channels not in LIVE_CHANNELS:
        raise InvalidRequest(f"config.channels: {config.channels} is not within 1 .. 8", field="config.channels")
    with _within_config():
        actor_id = check_actor_id(config.actor_id)
        use = use_of(config.project, config.language)
    if config.max_late_ms and config.max_late_ms < LEAST_LATE_MS:
        raise InvalidRequest(
            f"config.max_late_ms: {config.max_late_ms} is less than {LEAST_LATE_MS}, and no frame can be promised so soon: give "
            f"{LEAST_LATE_MS} or more, or 0 for all frames",
            field="config.max_late_ms",
        )
    max_late_s = config.max_late_ms / 1000 if config.max_late_ms else None
    expressiveness = config.expressiveness if config.HasField("expressiveness") else 1.0
    return LiveOptions(actor_id, config.sample_rate_hz, config.channels, use, config.first_frame, max_late_s, expressiveness)


@contextmanager
def _within_config() -> Iterator[None]:
    """Let errors name the field of the config, where a check is shared with requests that have the same field elsewhere."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"config.{error.message}", field=f"config.{error.field}") from None


class LiveAudioReader:
    """Reads the sound of one live stream, message by message, and checks every message.

    Args:
        options: config of the stream.
    """

    def __init__(self, options: LiveOptions) -> None:
        self._options = options
        self._first_sample = self._next_sample = first_sample(options.first_frame, options.sample_rate_hz)

    def chunk(self, request: pb.LiveRequest) -> audio_pb2.AudioChunk:
        """Return the next piece of sound. The first piece of the stream begins with sample 0, wherever the stream goes on.

        Raises:
            InvalidRequest: the message holds no sound, is out of order, ends within a sample, or holds numbers that are not finite.
            MessageTooLarge: the message holds more than MAX_LIVE_SECONDS_A_MESSAGE.
        """
        if not request.HasField("audio"):
            raise InvalidRequest("audio: after the config every message must be sound", field="audio")
        first, pcm = request.audio.first_sample, request.audio.pcm_f32
        if first != self._next_sample:
            raise InvalidRequest(
                f"audio.first_sample: {first} is out of order: {self._next_sample} comes next", field="audio.first_sample"
            )
        frame_bytes = 4 * self._options.channels
        if len(pcm) % frame_bytes:
            raise InvalidRequest(
                f"audio.pcm_f32: {len(pcm)} bytes are not a whole number of float32 samples of {self._options.channels} channels",
                field="audio.pcm_f32",
            )
        count = len(pcm) // frame_bytes
        if count > MAX_LIVE_SECONDS_A_MESSAGE * self._options.sample_rate_hz:
            raise MessageTooLarge(
                f"audio.pcm_f32: {count / self._options.sample_rate_hz:.1f} s in one message; at most "
                f"{MAX_LIVE_SECONDS_A_MESSAGE} s: send smaller pieces, 20 to 40 ms for low latency",
                field="audio.pcm_f32",
            )
        samples: Float32 = np.frombuffer(pcm, "<f4")
        if not np.isfinite(samples).all():
            bad = first + int(np.argmin(np.isfinite(samples))) // self._options.channels
            raise InvalidRequest(f"audio.pcm_f32: sample {bad} is not a finite number", field="audio.pcm_f32")
        self._next_sample += count
        return audio_pb2.AudioChunk(first_sample=first - self._first_sample, pcm_f32=pcm)


def live_response(frame: LiveFrame) -> pb.LiveResponse:
    """Return the message of a live frame."""
    reason = common_pb2.FRAME_REASON_SILENT if frame.silent else common_pb2.FRAME_REASON_DUBBED
    tags = frame.colour
    colour = pb.ColourTags(matrix=tags.matrix, range=tags.color_range, primaries=tags.primaries, transfer=tags.transfer)
    return pb.LiveResponse(frame_index=frame.index, image=to_rgb_image(frame.picture), reason=reason, colour=colour)
