"""Messages of CreateDub to and from the gateway's own types, with validation."""

from __future__ import annotations

from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.stored import StoredActor, check_enrolled_for
from gateway.api.actor_messages import enrol_options_from, face_from
from gateway.api.consent_messages import consent_from
from gateway.api.local_media import LocalMedia
from gateway.consent.use import use_of
from gateway.media.encoders import check_target
from gateway.media.output_place import check_place
from gateway.methods import DEFAULT_METHOD, method_named
from gateway.pipeline.dub_request import DubRequest, check_reference, expression_named, wants_own_timeline
from gateway.pipeline.outcome import DubOutcome
from services.common.errors import InvalidRequest


def dub_request_from(message: pb.CreateDubRequest, media: LocalMedia, actor: StoredActor | None, *, threads: int) -> DubRequest:
    """Return the dub that CreateDub asks for.

    Args:
        message: the request.
        media: files of the request.
        actor: the actor that the request names; None: the request names none.
        threads: threads of decoder and encoder.

    Raises:
        InvalidRequest: a field cannot be used.
    """
    footage = media.source(message.footage_uri, "footage_uri")
    speech = media.source(message.speech_uri, "speech_uri") if message.speech_uri else None
    output = media.output(message.output_uri, "output_uri")
    reference = media.source(message.reference_uri, "reference_uri") if message.reference_uri else None
    method = method_named(message.method or (actor.method if actor is not None else DEFAULT_METHOD))
    if actor is not None:
        check_enrolled_for(actor, method.name)
    expression = expression_named(message.expression)
    wants_own_timeline(method, retime=message.retime, keep_audio=message.keep_audio, expression=expression)
    check_reference(method, reference)
    if message.HasField("reference_consent") and reference is None:
        raise InvalidRequest("reference_consent: the request names no reference_uri", field="reference_consent")
    return DubRequest(
        footage=footage,
        speech=speech,
        output=output,
        method=method.name,
        face=face_from(message.face),
        actor=actor.enrolled if actor is not None else None,
        own=actor.record if actor is not None else None,
        consent=consent_from(message.consent) if message.HasField("consent") else None,
        reference=reference,
        reference_consent=consent_from(message.reference_consent) if message.HasField("reference_consent") else None,
        use=use_of(message.project, message.language),
        keep_audio=message.keep_audio,
        codec=message.codec or None,
        enrol=enrol_options_from(skip=message.skip_personalization, seed=message.seed),
        threads=threads,
        retime=message.retime,
        expression=expression,
        expressiveness=message.expressiveness if message.HasField("expressiveness") else 1.0,
        overwrite=message.overwrite,
    )


def check_dub(request: DubRequest) -> None:
    """Check the output of a dub before the dub's turn comes. Blocks.

    Raises:
        InvalidRequest: the output cannot be written as asked, or is a file that may not be replaced.
    """
    check_place(
        request.output,
        footage=request.footage,
        speech=request.speech,
        reference=request.reference,
        overwrite=request.overwrite,
    )
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
        consent_on_record=request.named_consent is not None,
        warnings=[*outcome.warnings, *outcome.written.dropped],
        watermark_on=outcome.watermark.on,
        watermark=outcome.watermark.payload,
        undubbed=outcome.undubbed,
    )
