"""Messages from and to bytes, so that a handler can report bytes that are no message. gRPC itself would answer INTERNAL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from services.common.chassis.bounds import check_bounds
from services.common.chassis.calls import mebibytes
from services.common.errors import DubstageError, InvalidRequest, MessageTooLarge

_ROOM_BYTES: Final = 1 << 20
_LARGEST: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Received:
    """Request as it came.

    Attributes:
        message: the decoded message; None where there is an error.
        num_bytes: encoded size.
        error: why the bytes are no usable message.
    """

    message: Any
    num_bytes: int
    error: DubstageError | None = None

    def checked(self) -> Any:
        """Return the message. All its fields lie within their bounds.

        Raises:
            InvalidRequest: the bytes are no message of their type, or a field lies outside its bounds.
            MessageTooLarge: the message has more bytes than a message may have.
        """
        if self.error is not None:
            raise self.error
        if isinstance(self.message, Message):
            check_bounds(self.message, num_bytes=self.num_bytes)
        return self.message


def receive_limit(max_message_bytes: int) -> int:
    """Return the size of the largest message that gRPC reads, bytes: 1 MiB above the limit.

    The chassis refuses a message above the limit by name. gRPC ends the call of a still larger message as soon as the message's
    length has arrived, with its own status, RESOURCE_EXHAUSTED without details.
    """
    return min(max_message_bytes + _ROOM_BYTES, _LARGEST)


def decoder(decode: Callable[[bytes], Any] | None, max_message_bytes: int) -> Callable[[bytes], Received]:
    """Return a request deserialiser that never raises.

    Args:
        decode: the generated deserialiser, such as `RenderRequest.FromString`. None: requests are bytes.
        max_message_bytes: size above which a request is not decoded.
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
    """Return a response serialiser that the handler calls. gRPC calls the serialiser again with the bytes, which pass unchanged.

    Args:
        encode: the generated serialiser, such as `RenderResponse.SerializeToString`. None: responses are bytes.
        max_message_bytes: size above which a response is not sent.
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
