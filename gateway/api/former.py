"""The former contract of the gateway, v1alpha1, over the handlers of v1.

Messages are converted by their descriptors: a field of the same name is copied, and the tables of this file say which fields
have another name or form. The stages' messages are the same in both contracts (services/common/server/former.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dubstage.gateway.v1 import batch_pb2, gateway_pb2, media_pb2, webhook_pb2
from dubstage.gateway.v1alpha1 import batch_pb2 as former_batch_pb2
from dubstage.gateway.v1alpha1 import gateway_pb2 as former_gateway_pb2
from dubstage.gateway.v1alpha1 import media_pb2 as former_media_pb2
from dubstage.gateway.v1alpha1 import webhook_pb2 as former_webhook_pb2
from gateway.api.resources import ACTORS, BATCHES, UPLOADS, WEBHOOKS, duration_message, seconds_of, time_message
from gateway.dub.face_choice import AUTOMATIC, parse_face
from services.common.errors import ActorNotFoundError, ActorNotReadyError, InvalidRequestError, RequestError
from services.common.server.bounds import check_bounds

SERVED: Final[tuple[ServiceDescriptor, ...]] = tuple(
    service
    for file in (former_gateway_pb2, former_batch_pb2, former_media_pb2, former_webhook_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""Services of the former contract."""
_CURRENT: Final[Mapping[str, Descriptor]] = {
    name: message
    for file in (gateway_pb2, batch_pb2, media_pb2, webhook_pb2)
    for name, message in file.DESCRIPTOR.message_types_by_name.items()
}
_FORMER: Final[Mapping[str, Descriptor]] = {
    name: message
    for file in (former_gateway_pb2, former_batch_pb2, former_media_pb2, former_webhook_pb2)
    for name, message in file.DESCRIPTOR.message_types_by_name.items()
}


@dataclass(frozen=True, slots=True)
class _Change:
    """A field that has another name or form in v1.

    Attributes:
        name: name in v1.
        current: returns the value of v1 for a former value; None: the field stays unset.
        former: returns the former value for a value of v1.
    """

    name: str
    current: Callable[[Any], Any] = lambda value: value
    former: Callable[[Any], Any] = lambda value: value


def _named(collection: str, name: str = "name") -> _Change:
    return _Change(name, lambda text: f"{collection}/{text}", lambda text: str(text).removeprefix(f"{collection}/"))


def _timed(name: str) -> _Change:
    return _Change(name, time_message, lambda value: value.ToJsonString())


def _lasting(name: str, unit_s: float = 1.0) -> _Change:
    def former(value: Any) -> float:
        return round(seconds_of(value) / unit_s, 6)

    return _Change(name, lambda number: duration_message(number * unit_s), former)


def _chosen(enum: Any, prefix: str, field: str) -> _Change:
    def current(text: str) -> int:
        found = dict(enum.items()).get(f"{prefix}{text.upper()}")
        if found is None:
            known = ", ".join(str(key).removeprefix(prefix).lower() for key in enum.keys()[1:])
            raise InvalidRequestError(f"{field}: no {text[:80]!r}; there are: {known}", field=field)
        return int(found)

    return _Change(field, current)


_CODEC: Final = _chosen(gateway_pb2.VideoCodec, "VIDEO_CODEC_", "codec")
_EXPRESSION: Final = _chosen(gateway_pb2.Expression, "EXPRESSION_", "expression")
_OF_BATCH: Final = _named(BATCHES)
_CHANGES: Final[Mapping[str, _Change]] = {
    "Actor.actor_id": _named(ACTORS),
    "Actor.created_at": _timed("create_time"),
    "GetActorRequest.actor_id": _named(ACTORS),
    "EraseActorRequest.actor_id": _named(ACTORS),
    "EraseActorResponse.actor_id": _named(ACTORS, "actor"),
    "EraseActorResponse.erased_at": _timed("erase_time"),
    "RevokeConsentRequest.actor_id": _named(ACTORS, "actor"),
    "RevokeConsentResponse.withdrawn_at": _timed("revoke_time"),
    "RevokeConsentResponse.actor_ids": _named(ACTORS, "actors"),
    "CreateDubRequest.actor_id": _named(ACTORS, "actor"),
    "CreateDubRequest.codec": _CODEC,
    "CreateDubRequest.expression": _EXPRESSION,
    "DubLine.actor_id": _named(ACTORS, "actor"),
    "LiveConfig.actor_id": _named(ACTORS, "actor"),
    "LiveConfig.max_late_ms": _lasting("max_lateness", 1e-3),
    "EstimateDubResponse.processor_s": _lasting("processor_duration"),
    "EstimateDubResponse.wall_s": _lasting("wall_duration"),
    "BatchRow.actor_id": _named(ACTORS, "actor"),
    "BatchRow.codec": _CODEC,
    "BatchRow.expression": _EXPRESSION,
    "BatchQuality.max_shift_ms": _lasting("max_shift", 1e-3),
    "DubMotion.vowel_shift_ms": _lasting("vowel_shift", 1e-3),
    "DubMotion.closure_shift_ms": _lasting("closure_shift", 1e-3),
    "Batch.batch_id": _OF_BATCH,
    "Batch.created_at": _timed("create_time"),
    "BatchProgress.seconds_left": _lasting("remaining"),
    "Shot.shot_id": _Change("name", former=lambda name: str(name).rpartition("/")[2]),
    "Shot.begun_at": _timed("begin_time"),
    "Shot.ended_at": _timed("end_time"),
    "Shot.seconds": _lasting("try_duration"),
    "GetBatchRequest.batch_id": _OF_BATCH,
    "ListShotsRequest.batch_id": _named(BATCHES, "parent"),
    "WatchBatchRequest.batch_id": _OF_BATCH,
    "CancelBatchRequest.batch_id": _OF_BATCH,
    "RetryBatchRequest.batch_id": _OF_BATCH,
    "DeleteBatchRequest.batch_id": _OF_BATCH,
    "GetReportRequest.batch_id": _OF_BATCH,
    "Upload.name": _named(UPLOADS),
    "Upload.expires_at": _timed("expire_time"),
    "UploadFileRequest.name": _named(UPLOADS),
    "GetUploadRequest.name": _named(UPLOADS),
    "DeleteUploadRequest.name": _named(UPLOADS),
    "Webhook.webhook_id": _named(WEBHOOKS),
    "Webhook.created_at": _timed("create_time"),
    "WebhookDelivery.subject": _Change("subject", former=lambda name: str(name).removeprefix(f"{BATCHES}/")),
    "DeleteWebhookRequest.webhook_id": _named(WEBHOOKS),
    "ListWebhookDeliveriesRequest.webhook_id": _named(WEBHOOKS, "parent"),
    "ReplayWebhookDeliveriesRequest.webhook_id": _named(WEBHOOKS),
}
"""Former fields that have another name or form in v1. `face` of requests is below."""
_FORMER_FIELDS: Final = {(former.partition(".")[0], change.name): former.partition(".")[2] for former, change in _CHANGES.items()}
"""Message and field of v1 -> former name of the field."""
_WRAPPED: Final = {
    "GetActorResponse": "actor",
    "GetBatchResponse": "batch",
    "CancelBatchResponse": "batch",
    "RetryBatchResponse": "batch",
    "UploadFileResponse": "upload",
    "GetUploadResponse": "upload",
    "CreateWebhookResponse": "webhook",
}
"""Former responses around a resource, which v1 returns itself -> the field with the resource."""


def former_type(current: type[Message]) -> type[Message]:
    """Return the former class of a message of v1."""
    return GetMessageClass(_FORMER[current.DESCRIPTOR.name])


def from_former(former: Message) -> Message:
    """Return the message of v1 for a former one.

    Raises:
        InvalidRequestError: a text is none of a closed list. The error names the field.
    """
    made: Any = GetMessageClass(_CURRENT[former.DESCRIPTOR.name])()
    for field, value in former.ListFields():
        if field.name == "face" and field.message_type is None:
            _choose_face(made, value)
            continue
        change = _CHANGES.get(f"{former.DESCRIPTOR.name}.{field.name}", _Change(field.name))
        _put(made, change.name, value, field.is_repeated, change.current, from_former)
    return made  # type: ignore[no-any-return]


def to_former(current: Message) -> Message:
    """Return the former message for one of v1, without the fields that the former contract lacks."""
    name = current.DESCRIPTOR.name
    made: Any = GetMessageClass(_FORMER[name])()
    for field, value in current.ListFields():
        former = _FORMER_FIELDS.get((name, field.name), field.name)
        change = _CHANGES.get(f"{name}.{former}", _Change(field.name))
        if former in made.DESCRIPTOR.fields_by_name:
            _put(made, former, value, field.is_repeated, change.former, to_former)
    if isinstance(current, media_pb2.Upload):
        made.path = current.name
    return made  # type: ignore[no-any-return]


def _put(
    made: Any, name: str, value: Any, repeated: bool, changed: Callable[[Any], Any], convert: Callable[[Message], Message]
) -> None:
    """Set a field of a message."""
    target = made.DESCRIPTOR.fields_by_name.get(name)
    if target is None:
        return

    def converted(one: Any) -> Any:
        one = changed(one)
        if isinstance(one, Message) and one.DESCRIPTOR is not target.message_type:
            return convert(one)
        return one

    if repeated:
        for place, one in enumerate(value):
            with _within(f"{name}[{place}]"):
                found = converted(one)
                if target.message_type is not None:
                    getattr(made, name).add().CopyFrom(found)
                else:
                    getattr(made, name).append(found)
        return
    if isinstance(value, Message) and target.message_type is not None and value.DESCRIPTOR.file.package.startswith("dubstage"):
        with _within(name):
            found = converted(value)
    else:
        found = converted(value)
    if found is None:
        return
    if target.message_type is not None:
        getattr(made, name).CopyFrom(found)
    else:
        setattr(made, name, found)


@contextmanager
def _within(place: str) -> Iterator[None]:
    try:
        yield
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{place}.{error.message}", field=f"{place}.{error.field}") from None


def _choose_face(made: Any, text: str) -> None:
    try:
        face = parse_face(text)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"face: {error.message}", field="face") from None
    if face.kind == "id":
        made.face_id = face.face_id
    elif face.kind == "point":
        made.point.x, made.point.y = face.point
    elif face != AUTOMATIC:
        made.face_rule = gateway_pb2.FaceRule.Value(f"FACE_RULE_{face.kind.upper()}")


def former_progress(kind: str, progress: Any) -> Message:
    """Return the former progress of an operation.

    Args:
        kind: kind of the operation: dub, actor or faces.
        progress: an OperationProgress.
    """
    name = gateway_pb2.OperationStep.Name(progress.step).removeprefix("OPERATION_STEP_").lower().replace("_", " ")
    stage = name if progress.step else ""
    match kind:
        case "dub":
            return former_gateway_pb2.DubProgress(
                stage=stage,
                frames_done=progress.done,
                frames_total=progress.total,
                frames_per_second=progress.frames_per_second,
            )
        case "actor":
            return former_gateway_pb2.ActorProgress(stage=stage, done=progress.done, total=progress.total)
        case _:
            return former_gateway_pb2.DetectFacesProgress(stage=stage, frames_done=progress.done, frames_total=progress.total)


def former_answer(kind: Descriptor, current: Message) -> Message:
    """Return the former response of an RPC.

    Args:
        kind: descriptor of the former response.
        current: the response of v1.
    """
    if kind is current.DESCRIPTOR:  # google.longrunning.Operation
        return current
    made: Any = GetMessageClass(kind)()
    if (field := _WRAPPED.get(kind.name)) is not None:
        getattr(made, field).CopyFrom(to_former(current))
        if isinstance(current, webhook_pb2.Webhook):
            made.secret = current.secret
    elif current.DESCRIPTOR.name in _FORMER:
        made.CopyFrom(to_former(current))
    return made  # type: ignore[no-any-return]


def former_error(error: RequestError, request: Descriptor) -> RequestError:
    """Return an error whose fields have their former names.

    Args:
        error: the error, which is changed.
        request: descriptor of the former request.
    """
    before, error.field = error.field, _former_path(error.field, request)
    if before != error.field and error.message.startswith(f"{before}: "):
        error.message = error.field + error.message.removeprefix(before)
        error.args = (error.message,)
    error.violations = tuple((_former_path(field, request), text) for field, text in error.violations)
    return error


def _former_path(path: str, request: Descriptor) -> str:
    """Return the former path of a field, such as `lines[0].actor_id` for `lines[0].actor`."""
    message: Descriptor | None = request
    found = []
    for part in path.split("."):
        name, bracket, rest = part.partition("[")
        former = name
        if message is not None:
            former = _FORMER_FIELDS.get((message.name, name), name)
            field = message.fields_by_name.get(former)
            message = field.message_type if field is not None else None
        found.append(former + bracket + rest)
    return ".".join(found)


class FormerService:
    """Handlers of one service of the former contract.

    Args:
        service: the service.
        servicer: servicer of the same service of v1.
    """

    def __init__(self, service: ServiceDescriptor, servicer: Any) -> None:
        self._service = service
        self._servicer = servicer

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the handlers of all RPCs."""
        found = {method.name: self._handler(method) for method in self._service.methods}
        return grpc.method_handlers_generic_handler(self._service.full_name, found)

    def _handler(self, method: MethodDescriptor) -> Any:
        codec: dict[str, Any] = {
            "request_deserializer": GetMessageClass(method.input_type).FromString,
            "response_serializer": GetMessageClass(method.output_type).SerializeToString,
        }
        streams = method.client_streaming
        make: Any
        if method.server_streaming:
            make = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_stream_rpc_method_handler
            return make(self._streaming(method), **codec)
        make = grpc.stream_unary_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(self._unary(method), **codec)

    def _unary(self, method: MethodDescriptor) -> Any:
        async def answer(request: Any, context: Any) -> Message:
            with _telling(method):
                response = await getattr(self._servicer, method.name)(_current(request, method), context)
            made: Any = former_answer(method.output_type, response)
            if isinstance(request, former_batch_pb2.SubmitBatchRequest) and request.rows:
                for mistake in made.mistakes:
                    mistake.field = _former_path(mistake.field, former_batch_pb2.BatchRow.DESCRIPTOR)
            return made  # type: ignore[no-any-return]

        return answer

    def _streaming(self, method: MethodDescriptor) -> Any:
        async def answer(request: Any, context: Any) -> AsyncIterator[Message]:
            with _telling(method):
                responses = getattr(self._servicer, method.name)(_current(request, method), context)
                async with aclosing(responses):
                    async for response in responses:
                        yield former_answer(method.output_type, response)

        return answer


def _current(request: Any, method: MethodDescriptor) -> Any:
    """Return the requests of v1 for former ones."""
    if not method.client_streaming:
        return _checked(request)

    async def requests() -> AsyncIterator[Message]:
        async for one in request:
            yield _checked(one)

    return requests()


def _checked(former: Message) -> Message:
    message = from_former(former)
    check_bounds(message)
    return message


@contextmanager
def _telling(method: MethodDescriptor) -> Iterator[None]:
    """Let errors have their former names and reasons."""
    try:
        yield
    except RequestError as error:
        former_error(error, method.input_type)
        raise
    except ActorNotFoundError as error:
        raise ActorNotReadyError(error.message, subject=error.subject) from None


def former_services(servicers: Mapping[str, Any]) -> Iterable[grpc.GenericRpcHandler]:
    """Yield the handlers of all services of the former contract.

    Args:
        servicers: servicers of v1 by the names of the services, such as `ActorService`.
    """
    for service in SERVED:
        yield FormerService(service, servicers[service.name]).handlers()
