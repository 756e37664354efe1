"""Bounds of the fields of requests, checked where requests enter. The contracts declare them (dubstage/common/v1/bounds.proto).

The checks of a message type are compiled from its descriptor once. Bytes that cannot be too long are not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.api import field_behavior_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dubstage.common.v1 import bounds_pb2
from services.common.errors import InvalidRequestError

Check = Callable[[Any, "int | None"], None]
"""Takes a message and its encoded size in bytes (None: unknown). Raises InvalidRequestError."""

_INTEGERS: Final[Mapping[int, tuple[int, int]]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_FLOATS: Final = frozenset({FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE})
_UTF8_BYTES: Final = 4
"""Bytes of the longest character."""
_NAME: Final = bounds_pb2.Bounds(max_bytes=256)
_FOREIGN: Final[Mapping[str, bounds_pb2.Bounds]] = {
    "google.longrunning.ListOperationsRequest.name": _NAME,
    "google.longrunning.ListOperationsRequest.filter": _NAME,
    "google.longrunning.ListOperationsRequest.page_size": bounds_pb2.Bounds(max=(1 << 31) - 1),
    "google.longrunning.ListOperationsRequest.page_token": _NAME,
    "google.longrunning.GetOperationRequest.name": _NAME,
    "google.longrunning.DeleteOperationRequest.name": _NAME,
    "google.longrunning.CancelOperationRequest.name": _NAME,
    "google.longrunning.WaitOperationRequest.name": _NAME,
    # google/protobuf/duration.proto allows 10,000 years.
    "google.protobuf.Duration.seconds": bounds_pb2.Bounds(min=-315_576_000_000, max=315_576_000_000),
    "google.protobuf.Duration.nanos": bounds_pb2.Bounds(min=-999_999_999, max=999_999_999),
}
"""Bounds of fields whose contracts are not dubstage's."""
_checks: dict[type[Message], Check] = {}


def declared(field: FieldDescriptor) -> bounds_pb2.Bounds | None:
    """Return the bounds of a field, or None where the contract declares no bounds."""
    if field.full_name in _FOREIGN:
        return _FOREIGN[field.full_name]
    options = field.GetOptions()
    return options.Extensions[bounds_pb2.bounds] if options.HasExtension(bounds_pb2.bounds) else None


def check_bounds(message: Message, *, num_bytes: int | None = None) -> None:
    """Check every field of a message, and of the messages inside the message, against the declared bounds.

    Required fields of the message, and of single messages inside, must be given.

    Args:
        message: a request.
        num_bytes: encoded size of the message, or None. With a size, fields that cannot be too long are not read, since reading
            copies.

    Raises:
        InvalidRequestError: a required field is missing, a number is outside its range or not finite, an enum has no such number,
            or a string, a bytes field or a repeated field is too long. The message names the field's path, the value and the range.
    """
    kind = type(message)
    check = _checks.get(kind)
    if check is None:
        check = _checks[kind] = _compiled(kind.DESCRIPTOR, "")
    check(message, num_bytes)


@dataclass(frozen=True, slots=True)
class _Number:
    """Range of the numbers of one field. Unset bounds are the bounds of the type."""

    name: str
    path: str
    low: float
    high: float
    zero_ok: bool
    may_be_unset: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high or (self.zero_ok and value == 0)

    def refuse(self, value: float, suffix: str = "") -> None:
        zero = " (0: unset)" if self.zero_ok else ""
        raise InvalidRequestError(
            f"{self.path}{suffix}: {value} is not within {_plain(self.low)} .. {_plain(self.high)}{zero}", field=self.path
        )


def _compiled(descriptor: Any, prefix: str, *, prefix_is_list: bool = False) -> Check:
    """Return one check for all fields of the messages that a `Descriptor` describes. Paths begin with `prefix`.

    Args:
        prefix_is_list: whether the messages are elements of a list.
    """
    steps: list[Check] = []
    numbers: list[_Number] = []
    for field in descriptor.fields:
        if not prefix_is_list and field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]:
            steps.append(_check_given(field, f"{prefix}{field.name}"))
        path, bounds = f"{prefix}{field.name}", declared(field) or bounds_pb2.Bounds()
        if field.is_repeated and bounds.max_items:
            steps.append(_check_count(field.name, path, bounds.max_items))
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            # Required fields of list elements are checked by the code that reads the list, because its error names the element.
            inner = _compiled(field.message_type, f"{path}.", prefix_is_list=prefix_is_list or field.is_repeated)
            steps.append(_check_messages(field.name, inner) if field.is_repeated else _check_message(field.name, inner))
        elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            steps.append(_check_enum(field, path))
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            if bounds.max_bytes:
                steps.append(_check_length(field, path, bounds.max_bytes))
        elif field.cpp_type in _INTEGERS or field.cpp_type in _FLOATS:
            number = _number(field, path, declared(field))
            if field.is_repeated:
                steps.append(_check_numbers(number, are_integers=field.cpp_type in _INTEGERS))
            else:
                numbers.append(number)
    if numbers:
        steps.insert(0, _check_each(numbers))

    def check(message: Any, num_bytes: int | None) -> None:
        for step in steps:
            step(message, num_bytes)

    return check


def _number(field: FieldDescriptor, path: str, bounds: bounds_pb2.Bounds | None) -> _Number:
    if bounds is None:
        largest = 3.4028234663852886e38 if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else 1.7976931348623157e308
        low, high = _INTEGERS.get(field.cpp_type, (-largest, largest))
        return _Number(field.name, path, low, high, zero_ok=False)
    return _Number(field.name, path, bounds.min, bounds.max, bounds.zero_ok, may_be_unset=field.has_presence)


def _check_each(numbers: Iterable[_Number]) -> Check:
    ranges = [(number.name, number.low, number.high, number) for number in numbers]

    def check(message: Any, num_bytes: int | None) -> None:
        for name, low, high, number in ranges:
            value = getattr(message, name)
            # NaN lies in no range.
            if not low <= value <= high and not number.holds(value) and not (number.may_be_unset and not message.HasField(name)):
                number.refuse(value)

    return check


def _check_numbers(number: _Number, *, are_integers: bool) -> Check:
    name, low, high = number.name, number.low, number.high

    def check(message: Any, num_bytes: int | None) -> None:
        values = getattr(message, name)
        # min and max are twice as fast for many integers. For floats they would miss NaN.
        if are_integers and values and low <= min(values) and max(values) <= high:
            return
        for index, value in enumerate(values):
            if not number.holds(value):
                number.refuse(value, f"[{index}]")

    return check


def _check_given(field: FieldDescriptor, path: str) -> Check:
    """Return the check that a request has a required field. Numbers are left to their bounds: 0 is not told from unset."""
    name = field.name
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated:

        def check(message: Any, num_bytes: int | None) -> None:
            if not message.HasField(name):
                raise InvalidRequestError(f"{path}: this field is required", field=path)

        return check
    if field.cpp_type not in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_ENUM) and not field.is_repeated:
        return lambda message, num_bytes: None

    def check_value(message: Any, num_bytes: int | None) -> None:
        if not getattr(message, name):
            raise InvalidRequestError(f"{path}: this field is required", field=path)

    return check_value


def _check_count(name: str, path: str, most: int) -> Check:
    def check(message: Any, num_bytes: int | None) -> None:
        count = len(getattr(message, name))
        if count > most:
            raise InvalidRequestError(f"{path}: {count} elements, at most {most} are allowed", field=path)

    return check


def _check_length(field: FieldDescriptor, path: str, most: int) -> Check:
    name, is_text = field.name, field.type == FieldDescriptor.TYPE_STRING

    def refuse(count: int) -> None:
        raise InvalidRequestError(f"{path}: {count} bytes long, at most {most} are allowed", field=path)

    def check_value(value: Any) -> None:
        if is_text and len(value) * _UTF8_BYTES > most:
            value = value.encode(errors="replace")
        if len(value) > most:
            refuse(len(value))

    def check(message: Any, num_bytes: int | None) -> None:
        if num_bytes is None or num_bytes > most:
            check_value(getattr(message, name))

    def check_all(message: Any, num_bytes: int | None) -> None:
        if num_bytes is None or num_bytes > most:
            for value in getattr(message, name):
                check_value(value)

    return check_all if field.is_repeated else check


def _check_enum(field: FieldDescriptor, path: str) -> Check:
    name, kind = field.name, field.enum_type
    assert kind is not None
    numbers, kind_name = frozenset(kind.values_by_number), kind.name
    choices = ", ".join(f"{value.name} = {value.number}" for value in kind.values)

    def refuse(number: int) -> None:
        raise InvalidRequestError(f"{path}: there is no {kind_name} {number}, only {choices}", field=path)

    def check(message: Any, num_bytes: int | None) -> None:
        value = getattr(message, name)
        if value not in numbers:
            refuse(value)

    def check_all(message: Any, num_bytes: int | None) -> None:
        for value in getattr(message, name):
            if value not in numbers:
                refuse(value)

    return check_all if field.is_repeated else check


def _check_message(name: str, inner: Check) -> Check:
    def check(message: Any, num_bytes: int | None) -> None:
        if message.HasField(name):
            inner(getattr(message, name), num_bytes)

    return check


def _check_messages(name: str, inner: Check) -> Check:
    def check(message: Any, num_bytes: int | None) -> None:
        for item in getattr(message, name):
            inner(item, num_bytes)

    return check


def _plain(number: float) -> str:
    return str(int(number)) if math.isfinite(number) and number == int(number) else str(number)
