"""Bodies of HTTP requests in JSON: read within the limits of their RPC, of their caller and of the process, and parsed in threads.

The contracts' bounds say how large the body of an RPC can be. Before a body is parsed, its values are counted: a parser builds an
object for each value, and Python's parser holds the interpreter meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.requests import Request

from gateway.api.http_callers import Shares
from gateway.async_utilities import in_thread
from gateway.json_texts import read_json
from gateway.tenants.quota import FairSlots
from services.common.errors import InvalidRequestError, MessageTooLargeError
from services.common.server.bounds import declared

BODY_S: Final = 60.0
"""Seconds in which the body of a request arrives."""
MOST_BYTES: Final = 16 << 20
"""Most bytes of a body, whatever the contract and DUBSTAGE_MAX_MESSAGE_BYTES say."""
MOST_VALUES: Final = 200_000
"""Most values of a body. The parser of JSON holds the interpreter for about 0.1 s with as many."""
BODIES_BYTES: Final = 64 << 20
"""Most bytes of all bodies that arrive, or are parsed, at the same time."""
BODIES_BYTES_OF_CALLER: Final = 32 << 20
"""Most bytes of the bodies of one caller."""
_PARSED_AT_ONCE: Final = 1
"""Bodies that are parsed at the same time. The parser is Python: several would only take turns, and the event loop would
wait for each of them.
"""
_SMALL_BYTES: Final = 4 << 10
"""Size of a body that is parsed at once, because a thread would take longer."""
_MARGIN_BYTES: Final = 4 << 10
_OTHER_BYTES: Final = 64
"""Most bytes of a number, an enum, a time or a truth value, with a name's spaces, quotes and signs."""
_ESCAPED: Final = 6
"""Bytes of JSON for one byte of a text, such as \\u0001."""
_UNBOUNDED_BYTES: Final = 64 << 10
"""Most bytes of a text that has no bound in a contract."""
_SIGNS: Final = (b"{", b"[", b",")
"""Signs that stand before a value. A text may have them too."""
_LEAST_VALUES: Final = 20_000
"""Values that any body may have, so that texts may have signs."""
_TEXTS: Final = frozenset({"google.protobuf.Duration", "google.protobuf.Timestamp", "google.protobuf.FieldMask"})
"""Messages that are texts in JSON."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits of the body of one RPC.

    Attributes:
        num_bytes: most bytes.
        num_values: most values.
    """

    num_bytes: int
    num_values: int


@functools.cache
def limits_of(message: Descriptor) -> BodyLimits:
    """Return the limits of the JSON of a request: what its contract allows, at most MOST_BYTES and MOST_VALUES."""
    num_bytes, num_values = _largest(message)
    return BodyLimits(min(MOST_BYTES, num_bytes + _MARGIN_BYTES), min(MOST_VALUES, 2 * num_values + _LEAST_VALUES))


def _largest(message: Descriptor) -> tuple[int, int]:
    """Return the most bytes and values of a message that its contract allows, each of them capped."""
    num_bytes, num_values = _OTHER_BYTES, 1
    for field in message.fields:
        bounds = declared(field)
        items = (bounds.max_items if bounds is not None else 0) or MOST_VALUES if field.is_repeated else 1
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            size = _ESCAPED * ((bounds.max_bytes if bounds is not None else 0) or _UNBOUNDED_BYTES)
            inner = (_OTHER_BYTES + size, 1)
        elif field.message_type is not None and field.message_type.full_name not in _TEXTS:
            inner = _largest(field.message_type)
        else:
            inner = (_OTHER_BYTES, 1)
        num_bytes += min(MOST_BYTES, len(field.json_name) + _OTHER_BYTES + items * inner[0])
        num_values += min(MOST_VALUES, items * inner[1])
    return num_bytes, num_values


def check_values(body: bytes, limits: BodyLimits) -> None:
    """Check the number of values of a body, without parsing the body.

    Raises:
        InvalidRequestError: the body has too many values.
    """
    num_signs = sum(body.count(sign) for sign in _SIGNS)
    if num_signs > limits.num_values:
        raise InvalidRequestError(
            f"the body has {num_signs} braces, brackets and commas, and this request has at most {limits.num_values}: send "
            "fewer values, the rows of a large batch in `manifest`, or call over gRPC",
            field="body",
        )


def json_object(text: bytes | str, field: str) -> dict[str, Any]:
    """Return the JSON object of a text that a caller sent.

    Args:
        text: JSON in UTF-8.
        field: what the text is, for the error.

    Raises:
        InvalidRequestError: `read_json` cannot read the text, or the text holds no object.
    """
    try:
        value = read_json(text)
    except ValueError as problem:
        raise InvalidRequestError(f"the {field} is not JSON: {problem}", field=field) from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the {field} is not a JSON object: send the fields of the request in {{}}", field=field)
    return value


def check_items(given: Mapping[str, Any], message: Descriptor, prefix: str = "") -> None:
    """Check the number of items of each list of a request, before messages are made of the items.

    Args:
        given: JSON of the request.
        message: type of the request.
        prefix: path of the object in the request, with a point at its end.

    Raises:
        InvalidRequestError: a list has more items than its contract allows.
    """
    fields = _fields_by_spelling(message)
    for spelling, value in given.items():
        field = fields.get(spelling)
        if field is None:
            continue
        path = f"{prefix}{field.name}"
        if field.is_repeated and isinstance(value, list):
            bounds = declared(field)
            if bounds is not None and bounds.max_items and len(value) > bounds.max_items:
                raise InvalidRequestError(
                    f"{len(value)} items, and there may be {bounds.max_items} at most", field=path, named=True
                )
        if field.message_type is not None:
            for one in value if isinstance(value, list) else (value,):
                if one and isinstance(one, dict):
                    check_items(one, field.message_type, f"{path}.")


@functools.cache
def _fields_by_spelling(message: Descriptor) -> dict[str, FieldDescriptor]:
    return {spelling: field for field in message.fields for spelling in (field.name, field.json_name)}


class Bodies:
    """Reads and parses the bodies of one server. Used from one event loop.

    Args:
        most_bytes: largest message of the gateway.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._shares = Shares(BODIES_BYTES, BODIES_BYTES_OF_CALLER, "bytes of bodies at the same time")
        self._slots = FairSlots(_PARSED_AT_ONCE)

    async def parsed(self, request: Request, limits: BodyLimits, caller: str, parse: Callable[[bytes], T]) -> T:
        """Return what `parse` makes of the body of a request.

        Args:
            request: a request whose caller was checked.
            limits: limits of the body.
            caller: what stands for the caller.
            parse: parses a body; called in a thread for all but small bodies.

        Raises:
            MessageTooLargeError: the body has more bytes than this request may have.
            OverloadedError: too many bodies arrive at the same time.
            InvalidRequestError: the body does not arrive in time, or has too many values.
            ClientDisconnect: the client went away.
        """
        most = min(limits.num_bytes, self._most_bytes)
        length = request.headers.get("content-length")
        if length is None and "transfer-encoding" not in request.headers:
            return parse(b"")
        expected = most if length is None else int(length)
        if expected > most:
            raise _too_large(most)
        with self._shares.taken(caller, expected):
            body = await self._read(request, most)
            check_values(body, limits)
            if len(body) <= _SMALL_BYTES:
                return parse(body)
            await self._slots.acquire(caller)
            try:
                return await in_thread(parse, body)
            finally:
                self._slots.release(caller)

    async def _read(self, request: Request, most: int) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise _too_large(most)
        except TimeoutError:
            raise InvalidRequestError(f"the body did not arrive within {BODY_S:.0f} s", field="body") from None
        return bytes(body)


def _too_large(most: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"the body of this request may have {most} bytes (the smaller of what its fields can take, {MOST_BYTES} and "
        "DUBSTAGE_MAX_MESSAGE_BYTES)"
    )
