"""Messages of google.longrunning to and from the gateway's own types, and the pages of all lists."""

from __future__ import annotations

from typing import Final

from google.longrunning import operations_pb2
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]

from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from gateway.operations.store import OperationRecord
from services.common.errors import InvalidRequest

DUB: Final = "dub"
"""Kind of the operations of CreateDub."""
ACTOR: Final = "actor"
"""Kind of the operations of CreateActor."""
_METADATA: Final[dict[str, type[Message]]] = {DUB: pb.DubProgress, ACTOR: pb.ActorProgress}
_RESPONSE: Final[dict[str, type[Message]]] = {DUB: pb.DubResult, ACTOR: pb.Actor}

MAX_PAGE: Final = 1000
"""Most entries of one page."""
DEFAULT_PAGE: Final = 100
"""Entries of a page if the request names no size."""


def operation_message(record: OperationRecord) -> operations_pb2.Operation:
    """Return the message of an operation."""
    message = operations_pb2.Operation(name=record.name, done=record.done)
    message.metadata.Pack(_METADATA[record.kind].FromString(record.metadata))
    if record.response is not None:
        message.response.Pack(_RESPONSE[record.kind].FromString(record.response))
    if record.error is not None:
        message.error.CopyFrom(status_pb2.Status.FromString(record.error))
    return message


def page_size_from(page_size: int) -> int:
    """Return the number of entries of a page.

    Raises:
        InvalidRequest: the number is negative.
    """
    if page_size < 0:
        raise InvalidRequest(f"page_size: {page_size} is negative", field="page_size")
    return min(page_size or DEFAULT_PAGE, MAX_PAGE)


def page_number_from(page_token: str) -> int:
    """Return the number of the operation that the page before ended with; 0 for the first page.

    Raises:
        InvalidRequest: this gateway gave no such token.
    """
    if page_token and not (page_token.isdecimal() and len(page_token) < 19):
        raise InvalidRequest("page_token: give the next_page_token of an earlier answer", field="page_token")
    return int(page_token or 0)


def done_filter_from(text: str) -> bool | None:
    """Return the state that a list is filtered by: True for `done = true`, False for `done = false`, None for an empty text.

    Raises:
        InvalidRequest: the text is another one.
    """
    known = {"": None, "done=true": True, "done=false": False}
    words = "".join(text.split()).lower()
    if words not in known:
        raise InvalidRequest(f"filter: {text[:80]!r} is not understood: give done=true, done=false or nothing", field="filter")
    return known[words]
