"""Messages of ActorService to and from the gateway's own types, with validation."""

from __future__ import annotations

from dubstage.common.v1alpha1 import common_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.actors.actor_id import check_actor_id
from gateway.actors.create import EnrolRequest
from gateway.actors.receipts import ErasureReceipt
from gateway.actors.stored import ActorSummary
from gateway.api.consent_messages import consent_from, consent_message
from gateway.api.local_media import LocalMedia
from gateway.consent.use import use_of
from gateway.media.takes import check_number
from gateway.methods import DEFAULT_METHOD, method_named
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import FaceChoice, parse_face
from services.common.errors import InvalidRequest


def enrol_request_from(message: pb.CreateActorRequest, media: LocalMedia, *, threads: int) -> EnrolRequest:
    """Return the enrolment that CreateActor asks for.

    Args:
        message: the request, with an actor id.
        media: files of the request.
        threads: threads of the decoder.

    Raises:
        InvalidRequest: a field cannot be used.
    """
    check_number(1 + len(message.more_footage_uris))
    return EnrolRequest(
        actor_id=check_actor_id(message.actor_id),
        footage=media.source(message.footage_uri, "footage_uri"),
        more_footage=tuple(media.source(uri, f"more_footage_uris[{place}]") for place, uri in enumerate(message.more_footage_uris)),
        method=method_named(message.method or DEFAULT_METHOD).name,
        face=face_from(message.face),
        consent=consent_from(message.consent) if message.HasField("consent") else None,
        project=use_of(message.project, None).project,
        options=enrol_options_from(skip=message.skip_personalization, seed=message.seed),
        threads=threads,
    )


def enrol_options_from(*, skip: bool, seed: int) -> EnrolOptions:
    """Return which parts of an enrolment are done.

    Args:
        skip: leave out both personalisations.
        seed: random seed of the personalisations.

    Raises:
        InvalidRequest: the seed is negative.
    """
    if seed < 0:
        raise InvalidRequest(f"seed: {seed} is negative", field="seed")
    return EnrolOptions(personalize_renderer=not skip, personalize_motion=not skip, seed=seed)


def face_from(text: str) -> FaceChoice:
    """Return the face to enrol or to dub; an empty text means the largest face.

    Raises:
        InvalidRequest: the text names no face.
    """
    return parse_face(text) if text else FaceChoice("largest")


def actor_message(actor: ActorSummary) -> pb.Actor:
    """Return the message of an actor."""
    message = pb.Actor(
        actor_id=actor.actor_id,
        method=actor.method,
        footage_sha256=actor.footage_sha256,
        created_at=actor.created_at,
        num_enrolled_frames=actor.num_frames or 0,
        lag_frames=actor.lag_frames or 0,
        damage=actor.damage,
        consent_problem=actor.consent_problem,
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
        receipt: the receipt.
        public_key: the public key of this gateway, PEM; empty: another gateway signed the receipt with a key of its own.
    """
    return pb.EraseActorResponse(
        actor_id=receipt.actor_id,
        erased_sha256=receipt.erased_sha256,
        kept_sha256=receipt.kept_sha256,
        erased_at=receipt.erased_at,
        signature=receipt.signature,
        receipt=receipt.to_json(),
        key_sha256=receipt.key,
        public_key=public_key,
    )
