"""Messages of dubstage.gateway.v1alpha1 to and from the gateway's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pydantic import ValidationError

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.create import EnrolRequest
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import check_actor_id, check_enrolled_for
from gateway.actors.stored import ActorSummary, StoredActor
from gateway.api.media_folder import MediaFolder
from gateway.consent import Consent
from gateway.live.session import LiveFrame
from gateway.media.encoders import check_target
from gateway.media.output_place import check_place
from gateway.methods import DEFAULT_METHOD, method_named
from gateway.operations.store import OperationRecord
from gateway.pipeline.dub_request import DubRequest, wants_own_timeline
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import FaceChoice, parse_face
from gateway.pipeline.outcome import DubOutcome
from services.common.arrays import to_rgb_image
from services.common.errors import InvalidRequest, MessageTooLarge

DUB: Final = "dub"
ACTOR: Final = "actor"
_METADATA: Final[dict[str, type[Message]]] = {DUB: pb.DubProgress, ACTOR: pb.ActorProgress}
_RESPONSE: Final[dict[str, type[Message]]] = {DUB: pb.DubResult, ACTOR: pb.Actor}

MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
LIVE_RATES_HZ: Final = range(8_000, 192_001)
LIVE_CHANNELS: Final = range(1, 9)
MAX_LIVE_SECONDS_A_MESSAGE: Final = 10


def consent_from(message: pb.ConsentRecord) -> Consent:
    """A consent record.

    Raises:
        InvalidRequest: a field is missing or wrong; it is named.
    """
    values = {field: getattr(message, field) for field in Consent.model_fields}
    try:
        return Consent.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = f"consent.{'.'.join(str(part) for part in first['loc'])}"
        raise InvalidRequest(f"{name}: {first['msg'].removeprefix('Value error, ')}", field=name) from None


def consent_message(consent: Consent) -> pb.ConsentRecord:
    """The message of a consent record."""
    return pb.ConsentRecord(
        subject=consent.subject,
        granted_by=consent.granted_by,
        scope=consent.scope,
        date=consent.date.isoformat(),
        reference=consent.reference,
    )


def enrol_request_from(message: pb.CreateActorRequest, media: MediaFolder, *, threads: int) -> EnrolRequest:
    """What is asked for by CreateActor.

    Raises:
        InvalidRequest: a field cannot be used.
    """
    return EnrolRequest(
        actor_id=check_actor_id(message.actor_id),
        footage=media.source(message.footage_uri, "footage_uri"),
        method=method_named(message.method or DEFAULT_METHOD).name,
        face=_face(message.face),
        consent=consent_from(message.consent) if message.HasField("consent") else None,
        options=_options(skip=message.skip_personalization, seed=message.seed),
        threads=threads,
    )


def dub_request_from(message: pb.CreateDubRequest, media: MediaFolder, actor: StoredActor | None, *, threads: int) -> DubRequest:
    """What is asked for by CreateDub; consent falls back to the actor's.

    Raises:
        InvalidRequest: a field cannot be used.
    """
    footage = media.source(message.footage_uri, "footage_uri")
    speech = media.source(message.speech_uri, "speech_uri") if message.speech_uri else None
    output = media.output(message.output_uri, "output_uri")
    method = method_named(message.method or (actor.method if actor is not None else DEFAULT_METHOD))
    if actor is not None:
        check_enrolled_for(actor, method.name)
    wants_own_timeline(method, retime=message.retime, keep_audio=message.keep_audio)
    consent = consent_from(message.consent) if message.HasField("consent") else None
    return DubRequest(
        footage=footage,
        speech=speech,
        output=output,
        method=method.name,
        face=_face(message.face),
        actor=actor.enrolled if actor is not None else None,
        consent=consent or (actor.consent if actor is not None else None),
        keep_audio=message.keep_audio,
        codec=message.codec or None,
        enrol=_options(skip=message.skip_personalization, seed=message.seed),
        threads=threads,
        retime=message.retime,
        overwrite=message.overwrite,
    )


def check_dub(request: DubRequest) -> None:
    """Refuse what can be known to be wrong before the dub's turn comes. Blocks.

    Raises:
        InvalidRequest: the output cannot be written as asked, or is a file that may not be replaced.
    """
    check_place(request.output, footage=request.footage, speech=request.speech, overwrite=request.overwrite)
    check_target(request.output, request.codec)


def _options(*, skip: bool, seed: int) -> EnrolOptions:
    if seed < 0:
        raise InvalidRequest(f"seed: {seed} is negative", field="seed")
    return EnrolOptions(personalize_renderer=not skip, personalize_motion=not skip, seed=seed)


def _face(text: str) -> FaceChoice:
    return parse_face(text) if text else FaceChoice("largest")


def actor_message(actor: ActorSummary) -> pb.Actor:
    """The message of an actor."""
    message = pb.Actor(
        actor_id=actor.actor_id,
        method=actor.method,
        footage_sha256=actor.footage_sha256,
        created_at=actor.created_at,
        num_enrolled_frames=actor.num_frames or 0,
        lag_frames=actor.lag_frames or 0,
        damage=actor.damage,
        artefacts=[
            common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)
            for _, ref in sorted(actor.artefacts.items())
        ],
    )
    if actor.consent is not None:
        message.consent.CopyFrom(consent_message(actor.consent))
    return message


def receipt_message(receipt: ErasureReceipt) -> pb.EraseActorResponse:
    """The message of an erasure's receipt."""
    return pb.EraseActorResponse(
        actor_id=receipt.actor_id,
        erased_sha256=receipt.erased_sha256,
        kept_sha256=receipt.kept_sha256,
        erased_at=receipt.erased_at,
        signature=receipt.signature,
    )


def result_message(output_uri: str, request: DubRequest, outcome: DubOutcome) -> pb.DubResult:
    """The message of a finished dub."""
    counts = outcome.plan.counts()
    return pb.DubResult(
        output_uri=output_uri,
        num_frames=outcome.plan.num_frames,
        num_dubbed=int(outcome.plan.rendered().sum()),
        reasons=[
            pb.ReasonCount(reason=common_pb2.FrameReason.Value(f"FRAME_REASON_{name}"), num_frames=count)
            for name, count in sorted(counts.items())
        ],
        consent_on_record=request.consent is not None,
        warnings=[*outcome.warnings, *outcome.written.dropped],
    )


def operation_message(record: OperationRecord) -> operations_pb2.Operation:
    """The message of an operation."""
    message = operations_pb2.Operation(name=record.name, done=record.done)
    message.metadata.Pack(_METADATA[record.kind].FromString(record.metadata))
    if record.response is not None:
        message.response.Pack(_RESPONSE[record.kind].FromString(record.response))
    if record.error is not None:
        message.error.CopyFrom(status_pb2.Status.FromString(record.error))
    return message


def page_size_from(page_size: int) -> int:
    """Entries a page.

    Raises:
        InvalidRequest: negative.
    """
    if page_size < 0:
        raise InvalidRequest(f"page_size: {page_size} is negative", field="page_size")
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


def page_number_from(page_token: str) -> int:
    """The operation number behind which a page begins.

    Raises:
        InvalidRequest: not a token of this gateway's.
    """
    if page_token and not (page_token.isdecimal() and len(page_token) < 19):
        raise InvalidRequest("page_token: not one that this gateway gave", field="page_token")
    return int(page_token or 0)


def done_filter_from(text: str) -> bool | None:
    """The state that a list is filtered by: `done = true`, `done = false`, or nothing.

    Raises:
        InvalidRequest: anything else.
    """
    known = {"": None, "done=true": True, "done=false": False}
    words = "".join(text.split()).lower()
    if words not in known:
        raise InvalidRequest(f"filter: only done=true and done=false are understood, not {text[:80]!r}", field="filter")
    return known[words]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Config of a live stream."""

    actor_id: str
    sample_rate_hz: int
    channels: int


def live_options_from(request: pb.LiveRequest | None) -> LiveOptions:
    """The config that begins a live stream.

    Raises:
        InvalidRequest: the first message is none, or its values cannot be used.
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
    return LiveOptions(check_actor_id(config.actor_id), config.sample_rate_hz, config.channels)


class LiveAudioReader:
    """Checks the sound of one live stream, message by message.

    Args:
        options: of the stream.
    """

    def __init__(self, options: LiveOptions) -> None:
        self._options = options
        self._next_sample = 0

    def chunk(self, request: pb.LiveRequest) -> audio_pb2.AudioChunk:
        """The next piece of sound.

        Raises:
            InvalidRequest: not sound, out of order, not whole samples, or not finite numbers.
            MessageTooLarge: more than MAX_LIVE_SECONDS_A_MESSAGE.
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
        samples: npt.NDArray[np.float32] = np.frombuffer(pcm, "<f4")
        if not np.isfinite(samples).all():
            bad = first + int(np.argmin(np.isfinite(samples))) // self._options.channels
            raise InvalidRequest(f"audio.pcm_f32: sample {bad} is not a finite number", field="audio.pcm_f32")
        self._next_sample += count
        return audio_pb2.AudioChunk(first_sample=first, pcm_f32=pcm)


def live_response(frame: LiveFrame) -> pb.LiveResponse:
    """The message of a live frame."""
    reason = common_pb2.FRAME_REASON_SILENT if frame.silent else common_pb2.FRAME_REASON_DUBBED
    return pb.LiveResponse(frame_index=frame.index, image=to_rgb_image(frame.picture), reason=reason)
