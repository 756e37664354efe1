"""The gateway: people, dubs as operations, live streams.

with connect("localhost:50050") as connection:
    dub = gateway.dub(connection, footage="shot.mp4", speech="speech.wav", output="dubbed.mp4")
    result = dub.wait(on_progress=print)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from google.protobuf.duration_pb2 import Duration

from dubstage.client import rpcs
from dubstage.client.arrays import Float32, Pixels, as_pcm, from_image
from dubstage.client.calls import Requests, paged_call, stream_call, unary_call
from dubstage.client.dub import Consent, DubOptions, Line, LiveOptions, dub_spec, option_fields
from dubstage.client.names import explaining_names, resource_name
from dubstage.client.operations import (
    DUB,
    ENROLMENT,
    FACES,
    AsyncOperation,
    Operation,
    OperationState,
    cancel_operation,
    delete_operation,
    get_operation,
    list_dubs,
    list_operations,
    operation_call,
    wait_operation,
)
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import DubSpec, FaceBox

__all__ = [
    "DUB",
    "ENROLMENT",
    "FACES",
    "AsyncOperation",
    "Consent",
    "DubOptions",
    "Line",
    "LiveFrame",
    "Operation",
    "OperationState",
    "cancel_operation",
    "delete_operation",
    "detect_faces",
    "dub",
    "dub_spec",
    "enrol",
    "erase_actor",
    "estimate",
    "get_actor",
    "get_actor_picture",
    "get_operation",
    "list_actors",
    "list_dubs",
    "list_operations",
    "live",
    "live_first_sample",
    "revoke_consent",
    "wait_operation",
]


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """One dubbed frame.

    Attributes:
        frame_index: number of the frame, which is shown at frame_index / 25 s of the speech.
        picture: uint8 RGB [H, W, 3].
        silent: whether nobody speaks.
        disclosure: signed disclosure record of the stream; None: another frame has it, or none was asked for.
    """

    frame_index: int
    picture: Pixels
    silent: bool
    disclosure: pb.LiveDisclosure | None = None


def _frame(reply: pb.LiveResponse) -> tuple[LiveFrame]:
    silent = reply.reason == common_pb2.FRAME_REASON_SILENT
    disclosure = reply.disclosure if reply.HasField("disclosure") else None
    return (LiveFrame(reply.frame_index, from_image(reply.image), silent, disclosure),)


def _actors(page: pb.ListActorsResponse) -> Sequence[pb.Actor]:
    return page.actors


@operation_call(rpcs.gateway.CREATE_ACTOR, ENROLMENT)
@explaining_names
def enrol(
    *,
    footage: str,
    actor_id: str = "",
    method: str = "",
    face: str | FaceBox = "",
    consent: Consent | None = None,
    personalize: bool = True,
    seed: int = 0,
    project: str = "",
    more_footage: Sequence[str] = (),
    request_id: str = "",
) -> pb.CreateActorRequest:
    """Begin to enrol a person and return the operation, whose result is an Actor.

    Args:
        footage: file below the gateway's media folder: a relative path, or a file:// url.
        actor_id: lower-case letters, digits and dashes, at most 63; empty: the gateway makes one.
        method: name of the method; empty: dubstage, or portrait for a single picture.
        face: "largest", "speaker", a face id, "X,Y" in pixels of the first frame, or a box in the same frame; empty: the
            speaker where the sound tells for certain, otherwise the largest.
        consent: that the person agreed to be dubbed.
        personalize: adapt the networks to the person. False: leave them as they are, which is quicker and less like the person.
        seed: random seed for personalisation.
        project: project that the enrolment belongs to; a consent record that names projects must name this one.
        more_footage: further files of the person, at most 15, which are joined to the first.
        request_id: UUID by which the gateway knows a request that comes again; empty: one is made.
    """
    return pb.CreateActorRequest(
        actor_id=actor_id,
        **option_fields(
            footage=footage, method=method, face=face, consent=consent, personalize=personalize, seed=seed, project=project
        ),
        more_footage_uris=more_footage,
        request_id=request_id,
    )


@operation_call(rpcs.gateway.CREATE_DUB, DUB)
@explaining_names
def dub(*, footage: str, output: str, request_id: str = "", **options: Unpack[DubOptions]) -> pb.CreateDubRequest:
    """Begin a dub and return the operation, whose result is a DubResult.

    Args:
        footage: file below the gateway's media folder: a relative path, or a file:// url.
        output: file to write, named like `footage`; the suffix chooses the container. The file appears whole, or not at all.
        request_id: UUID by which the gateway knows a request that comes again; empty: one is made.
        options: see `dubstage.client.dub.DubOptions`.
    """
    return pb.CreateDubRequest(dub=dub_spec(footage=footage, output=output, **options), request_id=request_id)


@unary_call(rpcs.gateway.ESTIMATE_DUB, lambda reply: reply)
def estimate(dub: DubSpec) -> pb.EstimateDubRequest:
    """Return an EstimateDubResponse: frames, seconds, memory and disk of a dub that is not begun.

    Args:
        dub: the dub, such as `dub_spec(footage="shot.mp4", output="dubbed.mp4")` makes.
    """
    return pb.EstimateDubRequest(dub=dub)


@operation_call(rpcs.gateway.DETECT_FACES, FACES)
def detect_faces(*, footage: str, skip_pictures: bool = False, request_id: str = "") -> pb.DetectFacesRequest:
    """Begin to list the faces of a video and return the operation, whose result is a DetectFacesResponse.

    Args:
        footage: file below the gateway's media folder: a relative path, or a file:// url.
        skip_pictures: leave the pictures of the faces out.
        request_id: UUID by which the gateway knows a request that comes again; empty: one is made.
    """
    return pb.DetectFacesRequest(footage_uri=footage, skip_pictures=skip_pictures, request_id=request_id)


@unary_call(rpcs.gateway.GET_ACTOR, lambda reply: reply)
def get_actor(actor_id: str) -> pb.GetActorRequest:
    """Return an Actor."""
    return pb.GetActorRequest(name=resource_name("actors", actor_id))


@unary_call(rpcs.gateway.GET_ACTOR_PICTURE, lambda reply: reply.data)
def get_actor_picture(actor_id: str) -> pb.GetActorPictureRequest:
    """Return a small picture of a person's face, JPEG. `Actor.has_picture` says whether there is one."""
    return pb.GetActorPictureRequest(name=resource_name("actors", actor_id))


@paged_call(rpcs.gateway.LIST_ACTORS, _actors)
def list_actors(*, page_size: int = 0) -> pb.ListActorsRequest:
    """Yield all Actors in the order of their ids.

    Args:
        page_size: actors per page, at most 1000; 0: 100.
    """
    return pb.ListActorsRequest(page_size=page_size)


@unary_call(rpcs.gateway.ERASE_ACTOR, lambda reply: reply)
def erase_actor(actor_id: str) -> pb.EraseActorRequest:
    """Erase a person and everything made from their footage, and return the signed receipt."""
    return pb.EraseActorRequest(name=resource_name("actors", actor_id))


@unary_call(rpcs.gateway.REVOKE_CONSENT, lambda reply: reply)
def revoke_consent(*, actor_id: str = "", record_sha256: str = "") -> pb.RevokeConsentRequest:
    """Ask for the end of a consent record, for ever: work with the record ends, and new work is refused. Return the withdrawal.

    Args:
        actor_id: the record of this actor; empty: `record_sha256` names the record.
        record_sha256: digest of the record, as `dubstage consent show` prints it; empty: `actor_id` names the record.
    """
    return pb.RevokeConsentRequest(actor=resource_name("actors", actor_id), record_sha256=record_sha256)


def live_first_sample(first_frame: int, sample_rate_hz: int) -> int:
    """Return the sample, per channel, with which the sound of a live stream begins that goes on with a frame.

    Args:
        first_frame: first frame that is wanted.
        sample_rate_hz: samples per second and channel.
    """
    return max(0, first_frame - 25) * sample_rate_hz // 25


@stream_call(rpcs.gateway.LIVE, _frame, once_ready=True)
@explaining_names
def live(
    *,
    actor_id: str,
    sample_rate_hz: int,
    channels: int = 1,
    max_late_ms: int = 0,
    first_frame: int = 0,
    disclose: bool = False,
    look_ahead_frames: int | None = None,
    **options: Unpack[LiveOptions],
) -> Requests[Float32 | pb.LiveAudio, pb.LiveRequest]:
    """Yield a LiveFrame for each 40 ms of speech, while the sound comes. Closing the iterator ends the stream.

    Items are pieces of the sound without gaps: float32 [n] or [n, channels] in [-1, 1], 20 to 40 ms each for low latency. The first
    piece is taken when the gateway is ready for it. If the gateway refuses the stream, no piece is taken, and the same iterator
    serves for the next attempt. A stream that ends later may be waiting for a piece: the stream takes and drops that piece, and
    until the piece comes, a generator cannot be read by another stream.

    Args:
        actor_id: an enrolled person whose footage is stored.
        sample_rate_hz: samples per second and channel, 8000 to 192000.
        channels: 1 to 8.
        max_late_ms: frames that are ready later than this after their sound came are left out, 300 to 60000; 0: every frame comes.
        first_frame: first frame that is wanted, so that a stream goes on where another one broke: the index of the last frame that
            came, and 1. The sound begins with sample `live_first_sample(first_frame, sample_rate_hz)`, a second before.
        disclose: whether the first frame comes with the signed disclosure record of the stream.
        look_ahead_frames: frames of 40 ms after a frame whose speech the mouth of the frame waits for, 0 to 3. More frames give
            better mouths, and each of them delays the stream by 40 ms. None: 1. Refused for an actor whose method has no choice.
        options: as for `dub`, see `dubstage.client.dub.LiveOptions`.
    """
    sent = live_first_sample(first_frame, sample_rate_hz)

    def item(piece: Float32 | pb.LiveAudio) -> pb.LiveRequest:
        nonlocal sent
        if isinstance(piece, pb.LiveAudio):
            return pb.LiveRequest(audio=piece)
        audio = pb.LiveAudio(first_sample=sent, pcm_f32=as_pcm(piece, channels))
        sent += len(piece)
        return pb.LiveRequest(audio=audio)

    lateness = Duration()
    lateness.FromMilliseconds(max_late_ms)
    config = pb.LiveConfig(
        actor=resource_name("actors", actor_id),
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        max_lateness=lateness if max_late_ms else None,
        first_frame=first_frame,
        disclose=disclose,
        look_ahead_frames=look_ahead_frames,
        **option_fields(**options),
    )
    return Requests(pb.LiveRequest(config=config), item)
