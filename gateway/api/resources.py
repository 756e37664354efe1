"""Names of resources, times, and closed lists of the gateway's contract, from and to plain values."""

from __future__ import annotations

import datetime
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.common.errors import InvalidRequestError

ACTORS: Final = "actors"
BATCHES: Final = "batches"
UPLOADS: Final = "uploads"
WEBHOOKS: Final = "webhooks"


def json_of(message: Message) -> dict[str, Any]:
    """Return a message as JSON: all fields that are no messages, also those with their default value."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def fill_message(message: Message, fields: dict[str, Any]) -> None:
    """Set the fields of a message to those of a JSON object.

    Raises:
        ValueError: a field is unknown or has a wrong value; in words.
    """
    try:
        json_format.ParseDict(fields, message)
    # protobuf does not expect an infinite number (1e400) for an enum, nor an integer of 400 digits for a float.
    except (json_format.ParseError, OverflowError) as problem:
        # The parser's second line lists all fields that there are.
        raise ValueError(str(problem).partition("\n")[0]) from None


def id_of(name: str, collection: str, field: str) -> str:
    """Return the id in the name of a resource, such as `ada` of `actors/ada`.

    Args:
        name: name of the resource.
        collection: what the name begins with, such as `actors`.
        field: field of the request, for the error.

    Raises:
        InvalidRequestError: the text is no name of such a resource.
    """
    resource_id = name.removeprefix(f"{collection}/")
    if resource_id == name or not resource_id or "/" in resource_id:
        raise InvalidRequestError(f"{name[:80]!r} is not the name of a resource: give {collection}/ID", field=field, named=True)
    return resource_id


def actor_name(actor_id: str) -> str:
    """Return the name of an actor, such as `actors/ada`."""
    return f"{ACTORS}/{actor_id}"


def time_message(text: str) -> Timestamp | None:
    """Return the Timestamp of a time, RFC 3339; None: the text is empty, or no time (a damaged record)."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    message = Timestamp()
    message.FromDatetime(at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC))
    return message


def duration_message(seconds: float) -> Duration:
    """Return a Duration, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def optional_duration(seconds: float | None) -> Duration | None:
    """Return a Duration; None for None."""
    return None if seconds is None else duration_message(seconds)


def seconds_of(duration: Duration) -> float:
    """Return the seconds of a Duration."""
    return duration.seconds + duration.nanos / 1e9
