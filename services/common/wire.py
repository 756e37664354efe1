"""Messages between bytes and Python objects, in a form whose failures a handler can report: gRPC itself would answer INTERNAL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from services.common.bounds import check_bounds
from services.common.calls import mebibytes
from services.common.errors import DubstageError, InvalidRequest, MessageTooLarge

_ROOM_BYTES: Final = 1 << 20
_LARGEST: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came.

    Attributes:
        message: None where there is an error.
        num_bytes: encoded size.
        error: why the bytes are no message that may be worked on.
    """

    message: Any
    num_bytes: int
    error: DubstageError | None = None

    def checked(self) -> Any:
        """The message, all of whose fields lie within their bounds.

        Raises:
            InvalidRequest: the bytes are no message of their type, or a field lies outside of its bounds.
            MessageTooLarge: more bytes than a message may have.
        """
        if self.error is not None:
            raise self.error
        if isinstance(self.message, Message):
            check_bounds(self.message, num_bytes=self.num_bytes)
        return self.message


def receive_limit(max_message_bytes: int) -> int:
    """The largest message that gRPC is to hand on, in bytes: about twice the limit, so that the chassis can name what is too large.

    Of a still larger message gRPC reads the length alone, and ends the call with its own status: RESOURCE_EXHAUSTED, no details.
    """
    return min(2 * max_message_bytes + _ROOM_BYTES, _LARGEST)


def decoder(decode: Callable[[bytes], Any] | None, max_message_bytes: int) -> Callable[[bytes], Received]:
    """A request deserialiser that never raises.

    Args:
        decode: the generated one, such as `RenderRequest.FromString`; None: requests are bytes.
        max_message_bytes: larger requests are not decoded.
    """
    name = str(getattr(getattr(getattr(decode, "__self__", None), "DESCRIPTOR", None), "full_name", "message"))

    def received(data: bytes) -> Received:
        if len(data) > max_message_bytes:
            return Received(None, len(data), _too_large(f"a {name}", len(data), max_message_bytes))
        if decode is None:
            return Received(data, len(data))
        try:
            return Received(decode(data), len(data))
        except DecodeError as error:
            refused = InvalidRequest(f"the {len(data)} bytes that were sent are no {name}")
            refused.__cause__ = error
            return Received(None, len(data), refused)

    return received


def encoder(encode: Callable[[Any], bytes] | None, max_message_bytes: int) -> Callable[[Any], bytes]:
    """A response serialiser that is called by the handler; what it has made passes through it unchanged.

    Args:
        encode: the generated one, such as `RenderResponse.SerializeToString`; None: responses are bytes.
        max_message_bytes: larger responses are not sent.
    """

    def encoded(response: Any) -> bytes:
        data: bytes = response if encode is None or isinstance(response, bytes) else encode(response)
        if len(data) > max_message_bytes:
            raise _too_large("the answer", len(data), max_message_bytes)
        return data

    return encoded


def _too_large(what: str, num_bytes: int, most: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"{what} of {mebibytes(num_bytes)} is too large: a message may have {mebibytes(most)}; send less in one message, or set "
        "DUBSTAGE_MAX_MESSAGE_BYTES higher on both sides"
    )
