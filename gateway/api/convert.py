"""Messages of actors, consents, dubs and live streams, from and to the gateway's own types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_image
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import dub_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.actors.consents import Withdrawal
from gateway.actors.create import EnrolRequest
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.stored import ActorSummary, check_actor_id
from gateway.api.media import RequestMedia
from gateway.api.resources import actor_name, duration_message, seconds_of, time_message
from gateway.consent.messages import consent_from, consent_message
from gateway.consent.record import ConsentUse, use_of
from gateway.dub.job.estimate import DubEstimate
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.learn.face_list import FaceList, ListedFace
from gateway.dub.request.dub_request import DubRequest, default_method
from gateway.dub.request.spec import enrol_options, face_of, label_from, within
from gateway.dub.request.spec_text import actor_of
from gateway.live.session import LiveFrame, LiveMouth, first_sample
from gateway.live.streams import Disclosing
from gateway.media.encoders import check_target
from gateway.media.output import check_output_file
from gateway.media.takes import check_number_of_takes
from services.common.array_types import Float32, Int32, UInt8
from services.common.errors import InvalidRequestError, MessageTooLargeError
from services.common.methods import method_named
from services.common.wire.convert import mouth_from_proto

LIVE_RATES_HZ: Final = range(8_000, 192_001)
"""Sample rates of the sound of a live stream."""
LIVE_CHANNELS: Final = range(1, 9)
"""Numbers of channels of the sound of a live stream."""
LEAST_LATE_S: Final = 0.3
"""Least lateness, seconds, for which a stream may ask that frames are left out: the time within which frames come."""
MOST_LATE_S: Final = 60.0
"""Most lateness that a stream may ask for, seconds."""
MAX_LIVE_SECONDS_A_MESSAGE: Final = 10
"""Most seconds of sound in one message."""


def withdrawal_message(withdrawal: Withdrawal) -> pb.RevokeConsentResponse:
    """Return the message of a withdrawal."""
    return pb.RevokeConsentResponse(
        record_sha256=withdrawal.record_sha256,
        revoke_time=time_message(withdrawal.withdrawn_at),
        actors=map(actor_name, withdrawal.actor_ids),
    )


def enrol_request_from(message: pb.CreateActorRequest, media: RequestMedia, *, threads: int) -> EnrolRequest:
    """Return the enrolment that CreateActor asks for. Blocks.

    Args:
        message: the request, with an actor id.
        media: files of the request.
        threads: threads of the decoder.

    Raises:
        InvalidRequestError: a field cannot be used.
    """
    check_number_of_takes(1 + len(message.more_footage_uris))
    actor_id = check_actor_id(message.actor_id)
    footage = media.source(message.footage_uri, "footage_uri")
    return EnrolRequest(
        actor_id=actor_id,
        footage=footage,
        more_footage=tuple(media.source(uri, f"more_footage_uris[{index}]") for index, uri in enumerate(message.more_footage_uris)),
        method=method_named(message.method or default_method(str(footage), footage)).name,
        face=face_of(message),
        consent=consent_from(message.consent) if message.HasField("consent") else None,
        project=use_of(message.project, None).project,
        options=enrol_options(message),
        threads=threads,
    )


def actor_message(actor: ActorSummary, num_dubs: int = 0) -> pb.Actor:
    """Return the message of an actor.

    Args:
        num_dubs: number of dubs of the actor that were made.
    """
    message = pb.Actor(
        name=actor_name(actor.actor_id),
        method=actor.method,
        footage_sha256=actor.footage_sha256,
        create_time=time_message(actor.created_at),
        num_enrolled_frames=actor.num_frames or 0,
        lag_frames=actor.lag_frames or 0,
        damage=actor.damage,
        consent_problem=actor.consent_problem,
        has_picture=actor.has_picture,
        num_dubs=num_dubs,
        artefacts=[
            common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)
            for _, ref in sorted(actor.artefacts.items())
        ],
    )
    if actor.consent is not None:
        message.consent.CopyFrom(consent_message(actor.consent))
    return message


def receipt_message(receipt: ErasureReceipt, public_key: str) -> pb.EraseActorResponse:
    """Return the message of an erasure's receipt.

    Args:
        public_key: the public key of this gateway, PEM; empty: another gateway signed the receipt with a key of its own.
    """
    return pb.EraseActorResponse(
        actor=actor_name(receipt.actor_id),
        erased_sha256=receipt.erased_sha256,
        kept_sha256=receipt.kept_sha256,
        erase_time=time_message(receipt.erased_at),
        signature=receipt.signature,
        receipt=receipt.to_json(),
        key_sha256=receipt.key,
        public_key=public_key,
    )


def check_dub(request: DubRequest) -> None:
    """Check the output of a dub before the dub's turn comes. Blocks.

    Raises:
        InvalidRequestError: the output cannot be written as asked, or is a file that may not be replaced.
    """
    check_output_file(request.output, inputs=request.inputs, overwrite=request.overwrite)
    check_target(request.output, request.codec)


def result_message(output_uri: str, request: DubRequest, outcome: DubOutcome) -> pb.DubResult:
    """Return the message of a finished dub."""
    counts = outcome.plan.counts()
    return pb.DubResult(
        output_uri=output_uri,
        num_frames=outcome.plan.num_frames,
        num_dubbed=int(outcome.plan.rendered().sum()),
        reasons=[
            pb.ReasonCount(reason=common_pb2.FrameReason.Value(f"FRAME_REASON_{name}"), num_frames=count)
            for name, count in sorted(counts.items())
        ],
        consent_on_record=all(part.named_consent is not None for part in request.parts),
        warnings=[*outcome.warnings, *outcome.written.dropped],
        watermark_on=outcome.watermark.on,
        watermark=outcome.watermark.payload,
        undubbed=outcome.undubbed,
        faces=[
            pb.DubbedFace(
                face_id=part.face_id,
                why=part.why,
                first_frame=part.frames.start,
                num_frames=len(part.frames),
                num_dubbed=part.num_dubbed,
            )
            for part in outcome.parts
        ],
        spans=_spans(outcome.plan.reason),
        frame_rate_num=outcome.video.video.average_rate.numerator,
        frame_rate_den=outcome.video.video.average_rate.denominator,
        mouths=[
            pb.MouthSample(
                frame_index=mouth.frame,
                box=dub_pb2.FaceBox(**dict(zip(("left", "top", "width", "height"), mouth.box, strict=True))),
                opening=mouth.opening,
            )
            for mouth in outcome.mouths
        ],
        begin=duration_message(float(outcome.begin)) if outcome.begin else None,
    )


def _spans(reason: Int32) -> list[pb.FrameSpan]:
    """Return the frames in a row that have one reason; `reason` is FrameReason, int32 [T]."""
    starts = np.flatnonzero(np.diff(reason, prepend=-1)).tolist()
    return [
        pb.FrameSpan(reason=int(reason[start]), first_frame=start, num_frames=end - start)  # type: ignore[arg-type]  # an enum's number
        for start, end in zip(starts, [*starts[1:], len(reason)], strict=True)
    ]


def estimate_message(estimate: DubEstimate) -> pb.EstimateDubResponse:
    """Return the message of an estimate."""
    return pb.EstimateDubResponse(
        num_frames=estimate.num_frames,
        num_rendered=estimate.num_rendered,
        processor_duration=duration_message(estimate.processor_s),
        wall_duration=duration_message(estimate.wall_s),
        memory_bytes=estimate.memory_bytes,
        disk_bytes=estimate.disk_bytes,
        num_dubs=estimate.num_dubs,
    )


def faces_message(face_list: FaceList, *, pictures: bool) -> pb.DetectFacesResponse:
    """Return the message of the faces of a video.

    Args:
        pictures: whether the message has the pictures of the faces.
    """
    return pb.DetectFacesResponse(
        faces=[_face_message(face, pictures=pictures) for face in face_list.faces],
        num_omitted=face_list.omitted,
        num_frames=face_list.num_frames,
        duration=duration_message(face_list.duration_s),
        speaker_face_id=face_list.speaker,
    )


def _face_message(face: ListedFace, *, pictures: bool) -> pb.DetectedFace:
    left, top, width, height = face.box
    return pb.DetectedFace(
        face_id=face.face_id,
        first_time=duration_message(face.first_s),
        last_time=duration_message(face.last_s),
        num_frames=face.num_frames,
        num_usable_frames=face.num_usable,
        frame_index=face.frame,
        box=dub_pb2.FaceBox(left=left, top=top, width=width, height=height),
        picture=face.jpeg() if pictures else b"",
        speaking=[
            pb.SpeakingSpan(
                start_time=duration_message(span.begin_s), end_time=duration_message(span.end_s), confidence=span.confidence
            )
            for span in face.speaks
        ],
    )


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
        mouth: how the mouth is predicted.
        disclosing: how the stream says that it is synthetic, besides the watermark.
        jpeg_quality: quality of the pictures as JPEG, 1 to 100; None: they are sent as samples.
    """

    actor_id: str
    sample_rate_hz: int
    channels: int
    use: ConsentUse = ConsentUse()
    first_frame: int = 0
    max_late_s: float | None = None
    mouth: LiveMouth = LiveMouth()
    disclosing: Disclosing = Disclosing()
    jpeg_quality: int | None = None


def live_options_from(request: pb.LiveRequest | None) -> LiveOptions:
    """Return the config that begins a live stream. Blocks: reads the font of the label.

    Raises:
        InvalidRequestError: the first message holds no config, or a value of the config cannot be used.
    """
    if request is None or not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    if config.sample_rate_hz not in LIVE_RATES_HZ:
        raise InvalidRequestError(
            f"{config.sample_rate_hz} is not within 8000 .. 192000", field="config.sample_rate_hz", named=True
        )
    if config.channels not in LIVE_CHANNELS:
        raise InvalidRequestError(f"{config.channels} is not within 1 .. 8", field="config.channels", named=True)
    with within("config"):
        actor_id = check_actor_id(actor_of(config), "actor")
        use = use_of(config.project, config.language)
        label = label_from(config)
    max_late_s = seconds_of(config.max_lateness) if config.HasField("max_lateness") else None
    if max_late_s is not None and not LEAST_LATE_S <= max_late_s <= MOST_LATE_S:
        raise InvalidRequestError(
            f"{max_late_s:g} s is not within {LEAST_LATE_S} .. {MOST_LATE_S:g} s: leave the field out for all frames",
            field="config.max_lateness",
            named=True,
        )
    return LiveOptions(
        actor_id,
        config.sample_rate_hz,
        config.channels,
        use,
        config.first_frame,
        max_late_s,
        mouth_from_proto(config, LiveMouth()),
        Disclosing(label, config.disclose),
        config.jpeg_quality if config.HasField("jpeg_quality") else None,
    )


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
            InvalidRequestError: the message holds no sound, is out of order, ends within a sample, or holds numbers that are not
                finite.
            MessageTooLargeError: the message holds more than MAX_LIVE_SECONDS_A_MESSAGE.
        """
        if not request.HasField("audio"):
            raise InvalidRequestError("after the config every message must be sound", field="audio", named=True)
        first, pcm = request.audio.first_sample, request.audio.pcm_f32
        if first != self._next_sample:
            raise InvalidRequestError(
                f"{first} is out of order: {self._next_sample} comes next", field="audio.first_sample", named=True
            )
        frame_bytes = 4 * self._options.channels
        if len(pcm) % frame_bytes:
            raise InvalidRequestError(
                f"{len(pcm)} bytes are not a whole number of float32 samples of {self._options.channels} channels",
                field="audio.pcm_f32",
                named=True,
            )
        count = len(pcm) // frame_bytes
        if count > MAX_LIVE_SECONDS_A_MESSAGE * self._options.sample_rate_hz:
            raise MessageTooLargeError(
                f"audio.pcm_f32: {count / self._options.sample_rate_hz:.1f} s in one message; at most "
                f"{MAX_LIVE_SECONDS_A_MESSAGE} s: send smaller pieces, 20 to 40 ms for low latency",
                field="audio.pcm_f32",
            )
        samples: Float32 = np.frombuffer(pcm, "<f4")
        if not np.isfinite(samples).all():
            bad = first + int(np.argmin(np.isfinite(samples))) // self._options.channels
            raise InvalidRequestError(f"sample {bad} is not a finite number", field="audio.pcm_f32", named=True)
        self._next_sample += count
        return audio_pb2.AudioChunk(first_sample=first - self._first_sample, pcm_f32=pcm)


def live_response(frame: LiveFrame, jpeg_quality: int | None = None) -> pb.LiveResponse:
    """Return the message of a live frame. Blocks.

    Args:
        jpeg_quality: see LiveOptions.
    """
    reason = common_pb2.FRAME_REASON_SILENT if frame.silent else common_pb2.FRAME_REASON_DUBBED
    tags = frame.colour
    colour = pb.ColourTags(matrix=tags.matrix, range=tags.color_range, primaries=tags.primaries, transfer=tags.transfer)
    signed = frame.disclosure
    disclosure = pb.LiveDisclosure(xmp=signed.packet, manifest=signed.manifest) if signed is not None else None
    image = to_image(frame.picture) if jpeg_quality is None else _jpeg(frame.picture, jpeg_quality)
    return pb.LiveResponse(frame_index=frame.index, image=image, reason=reason, colour=colour, disclosure=disclosure)


def _jpeg(picture: UInt8, quality: int) -> common_pb2.Image:
    height, width, _ = picture.shape
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return common_pb2.Image(width=width, height=height, encoding=common_pb2.IMAGE_ENCODING_JPEG, data=data.tobytes())
