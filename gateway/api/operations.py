"""Long-running operations of a gateway: the RPCs of google.longrunning.Operations, their messages, pages and filters, which other
lists use too, and the entries that operations leave in the audit log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]

from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.api.resources import time_message
from gateway.async_utilities import in_thread
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from gateway.audit.work import watermark_details
from gateway.consent.messages import consent_from
from gateway.consent.record import digest_of
from gateway.dub.request.spec import actors_of, records_of, without_records
from gateway.operations import store
from gateway.operations.runner import OperationRunner
from gateway.operations.store import NO_REQUEST_ID, OperationRecord, RequestIdentity
from gateway.provenance.claim import VideoWatermark
from gateway.stages.interface import STAGE_NAMES
from gateway.tenants.long_calls import LongCalls
from services.common.errors import InvalidRequestError, WorkCancelledError
from services.common.server import call_context, error_status

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
DUB: Final = store.DUB
"""Kind of the operations of CreateDub."""
ACTOR: Final = "actor"
"""Kind of the operations of CreateActor."""
FACES: Final = store.FACES
"""Kind of the operations of DetectFaces."""
_REQUEST: Final[dict[str, type[Message]]] = {
    DUB: pb.CreateDubRequest,
    ACTOR: pb.CreateActorRequest,
    FACES: pb.DetectFacesRequest,
}
_RESPONSE: Final[dict[str, type[Message]]] = {DUB: pb.DubResult, ACTOR: pb.Actor, FACES: pb.DetectFacesResponse}
MAX_PAGE: Final = 1000
"""Most entries of one page."""
DEFAULT_PAGE: Final = 100
"""Entries of a page if the request names no size."""
_CONDITIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "done=true": {"done": True},
    "done=false": {"done": False},
    **{f"kind={kind}": {"kind": kind} for kind in _REQUEST},
    "order=newest": {"newest": True},
}
LONGEST_WAIT_S: Final = 3600.0
"""Most seconds that one WaitOperation waits."""
_BEGUN: Final[Mapping[str, EventKind]] = {DUB: EventKind.DUB_BEGUN, ACTOR: EventKind.ENROLMENT_BEGUN}
_FAILED: Final[Mapping[str, EventKind]] = {DUB: EventKind.DUB_FAILED, ACTOR: EventKind.ENROLMENT_FAILED}
_CANCELLED: Final[Mapping[str, EventKind]] = {DUB: EventKind.DUB_CANCELLED, ACTOR: EventKind.ENROLMENT_CANCELLED}


def stages_of(kind: str) -> tuple[str, ...]:
    """Return the names of the stages that operations and batches of a kind call.

    A dub and an enrolment call all stages with every method. A list of faces needs no texture and draws nothing.
    """
    return ("audio", "face", "motion") if kind == FACES else STAGE_NAMES


def num_calling(stage: str, unfinished: Mapping[str, int]) -> int:
    """Return the number of operations and batches that call a stage.

    Args:
        stage: name of the stage.
        unfinished: number of operations and batches that run or wait, by kind.
    """
    return sum(number for kind, number in unfinished.items() if stage in stages_of(kind))


def stored_request(record: OperationRecord) -> Message:
    """Return the request that began an operation."""
    return _REQUEST[record.kind].FromString(record.request)


def operation_message(record: OperationRecord) -> operations_pb2.Operation:
    """Return the message of an operation."""
    message = operations_pb2.Operation(name=record.name, done=record.done)
    progress = pb.OperationProgress.FromString(record.metadata)
    if record.done:
        progress.ClearField("remaining")
        progress.fraction = 1.0 if record.error is None else progress.fraction
    if record.kind == DUB:
        progress.dub.CopyFrom(without_records(pb.CreateDubRequest.FromString(record.request).dub))
    if (created := time_message(record.created_at)) is not None:
        progress.create_time.CopyFrom(created)
    message.metadata.Pack(progress)
    if record.response is not None:
        message.response.Pack(_RESPONSE[record.kind].FromString(record.response))
    if record.error is not None:
        message.error.CopyFrom(status_pb2.Status.FromString(record.error))
    return message


def listed_message(record: OperationRecord) -> operations_pb2.Operation:
    """Return the message of an operation for a list, which leaves out what grows with the length of a video."""
    message = operation_message(record)
    result = pb.DubResult()
    if message.response.Unpack(result):
        del result.spans[:], result.mouths[:]
        message.response.Pack(result)
    return message


def request_identity(request: Message) -> RequestIdentity:
    """Return what identifies a request of the current caller when the request comes again.

    Args:
        request: a request with the field `request_id`.

    Raises:
        InvalidRequestError: the id is no UUID.
    """
    text: str = request.request_id  # type: ignore[attr-defined]  # the requests that create something
    if not text:
        return NO_REQUEST_ID
    if not _UUID.fullmatch(text):
        raise InvalidRequestError(
            f"{text[:40]!r} is no UUID: give 32 hexadecimal digits with hyphens, such as 123e4567-e89b-42d3-a456-426614174000",
            field="request_id",
            named=True,
        )
    data = request.DESCRIPTOR.full_name.encode() + request.SerializeToString(deterministic=True)
    return RequestIdentity(text.lower(), hashlib.sha256(data).hexdigest())


def page_size_from(page_size: int) -> int:
    """Return the number of entries of a page.

    Raises:
        InvalidRequestError: the number is negative.
    """
    if page_size < 0:
        raise InvalidRequestError(f"{page_size} is negative", field="page_size", named=True)
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


def page_number_from(page_token: str, most_digits: int = 18) -> int:
    """Return the number of the entry that the page before ended with.

    Args:
        page_token: the token of a request, or one number of the token.
        most_digits: most digits of a number.

    Raises:
        InvalidRequestError: this gateway gave no such token.
    """
    if not (page_token.isascii() and page_token.isdecimal() and len(page_token) <= most_digits):
        raise InvalidRequestError("give the next_page_token of an earlier answer", field="page_token", named=True)
    return int(page_token)


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Operations that a list has.

    Attributes:
        done: only operations that have ended (True) or have not ended (False); None: all.
        kind: only operations of this kind; empty: all.
        newest: whether the list begins with the operation that was submitted last.
    """

    done: bool | None = None
    kind: str = ""
    newest: bool = False


def list_filter_from(text: str) -> ListFilter:
    """Return what the filter of a list says: conditions with AND between them, such as `done=true AND kind=dub AND order=newest`.

    Raises:
        InvalidRequestError: a condition is unknown, or contradicts another one.
    """
    chosen: dict[str, Any] = {}
    for condition in re.split(r"\s+AND\s+", text.strip()) if text.strip() else ():
        fields = _CONDITIONS.get("".join(condition.split()).lower(), {})
        if not fields or fields.keys() & chosen.keys():
            raise InvalidRequestError(
                f"{text[:80]!r} is not understood: give some of done=true or done=false, kind={'|'.join(_REQUEST)} and "
                "order=newest, with AND between them, or nothing",
                field="filter",
                named=True,
            )
        chosen |= fields
    return ListFilter(**chosen)


async def operations_page(
    runner: OperationRunner, request: operations_pb2.ListOperationsRequest | pb.ListDubsRequest, wanted: ListFilter
) -> tuple[list[operations_pb2.Operation], str]:
    """Return one page of a list of operations, and the token of the next page; empty: there is none.

    Args:
        runner: runs the operations.
        request: a request with `page_size` and `page_token`.
        wanted: operations that the list has.

    Raises:
        InvalidRequestError: the size is negative, or this gateway gave no such token.
    """
    size, after = page_size_from(request.page_size), page_number_from(request.page_token or "0")
    records = await runner.list(after=after, limit=size + 1, done=wanted.done, kind=wanted.kind, newest=wanted.newest)
    page = records[:size]
    return [listed_message(record) for record in page], str(page[-1].number) if len(records) > size else ""


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # the base class has no types
    """Shows, cancels and forgets operations, and waits for their end.

    Args:
        runner: runs the operations.
        audit: the audit log.
        long_calls: long calls of all tenants.
    """

    def __init__(self, runner: OperationRunner, audit: AuditLog, long_calls: LongCalls) -> None:
        self._runner = runner
        self._audit = audit
        self._long_calls = long_calls

    async def ListOperations(  # noqa: N802
        self, request: operations_pb2.ListOperationsRequest, context: Any
    ) -> operations_pb2.ListOperationsResponse:
        """List operations in the order of their submission, or the newest first."""
        page, token = await operations_page(self._runner, request, list_filter_from(request.filter))
        return operations_pb2.ListOperationsResponse(operations=page, next_page_token=token)

    async def GetOperation(  # noqa: N802
        self, request: operations_pb2.GetOperationRequest, context: Any
    ) -> operations_pb2.Operation:
        """Return an operation as it is now."""
        return operation_message(await self._runner.get(request.name))

    async def DeleteOperation(self, request: operations_pb2.DeleteOperationRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        """Forget an operation that has ended."""
        await self._runner.delete(request.name)
        return empty_pb2.Empty()

    async def CancelOperation(self, request: operations_pb2.CancelOperationRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        """Ask an operation to stop. An operation that has stopped has an error of the code CANCELLED."""
        done = (await self._runner.get(request.name)).done
        await self._runner.cancel(request.name)
        if not done:
            await in_thread(self._audit.record, AuditEvent(event=EventKind.OPERATION_CANCELLED, work=request.name))
        return empty_pb2.Empty()

    async def WaitOperation(  # noqa: N802
        self, request: operations_pb2.WaitOperationRequest, context: Any
    ) -> operations_pb2.Operation:
        """Return an operation when it has ended, or as it is when the timeout or most of the call's deadline has passed.

        If too many calls wait already, return the operation as it is at once: other calls must find room.
        """
        if not self._long_calls.has_room():
            return operation_message(await self._runner.get(request.name))
        asked_s = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else LONGEST_WAIT_S
        remaining_s = call_context.remaining_s()
        # The answer must arrive before the caller's deadline.
        allowed_s = LONGEST_WAIT_S if remaining_s is None else remaining_s - min(0.5, remaining_s / 10)
        with self._long_calls.slot():
            return operation_message(await self._runner.wait(request.name, max(0.0, min(asked_s, allowed_s))))


def audit_event_of(record: OperationRecord) -> AuditEvent | None:
    """Return what is recorded of an operation that was submitted or has ended; None: nothing.

    The actor of an enrolment that succeeds is recorded with the actor's own rows.
    """
    if record.kind == FACES:
        # Nobody is enrolled or dubbed.
        return None
    if record.error is not None:
        return _failed(record)
    if not record.done:
        return _begun(record)
    if record.kind != DUB or record.response is None:
        return None
    result = pb.DubResult.FromString(record.response)
    return AuditEvent(
        event=EventKind.DUB_ENDED,
        work=record.name,
        outputs=(result.media_sha256,) if result.media_sha256 else (),
        details=watermark_details(VideoWatermark(on=result.watermark_on, payload=result.watermark)),
    )


def _begun(record: OperationRecord) -> AuditEvent:
    if record.kind == DUB:
        dub = pb.CreateDubRequest.FromString(record.request).dub
        method, records, actor_ids = dub.method, records_of(dub), actors_of(dub)
    else:
        message = pb.CreateActorRequest.FromString(record.request)
        records = [message.consent] if message.HasField("consent") else []
        method, actor_ids = message.method, (record.actor_id,)
    return AuditEvent(
        event=_BEGUN[record.kind],
        work=record.name,
        actor_ids=actor_ids,
        consents=tuple(digest_of(consent_from(consent)) for consent in records),
        details={"method": method} if method else {},
    )


def _failed(record: OperationRecord) -> AuditEvent:
    error = error_status.from_status(status_pb2.Status.FromString(record.error or b""))
    if isinstance(error, WorkCancelledError):
        return AuditEvent(event=_CANCELLED[record.kind], work=record.name)
    reason = error.reason if error is not None else ""
    return AuditEvent(event=_FAILED[record.kind], work=record.name, details={"reason": reason})
