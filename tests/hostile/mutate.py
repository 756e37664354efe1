"""Hostile variants of a valid request, found by reflection: any field of any message, any place of a stream."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2

_INT32 = (0, 1, -1, 2, 2**31 - 1, -(2**31), 10_000_019)
_INT64 = (*_INT32, 2**63 - 1, -(2**63), 2**62, 4_611_686_018_427_387_904 + 1, 10**15)
_UINT32 = (0, 1, 2, 2**32 - 1, 2**31, 10_000_019)
_UINT64 = (0, 1, 2**64 - 1, 2**63, 2**62)
_DOUBLE = (0.0, -0.0, 1e-320, 1e-30, -1.0, 1e30, -1e30, 3e38, 1e300, -1e300, 1.7976931348623157e308, float("nan"), float("inf"))
_FLOAT = (0.0, 1e-44, -1.0, 2.0, 1e30, 3e38, -3e38, float("nan"), float("inf"), float("-inf"))
NUMBERS: dict[int, tuple[Any, ...]] = {
    Field.CPPTYPE_INT32: _INT32,
    Field.CPPTYPE_INT64: _INT64,
    Field.CPPTYPE_UINT32: _UINT32,
    Field.CPPTYPE_UINT64: _UINT64,
    Field.CPPTYPE_DOUBLE: _DOUBLE,
    Field.CPPTYPE_FLOAT: _FLOAT,
    Field.CPPTYPE_BOOL: (False, True),
    Field.CPPTYPE_ENUM: (0, 1, 2, 99, -1, 2**31 - 1),
}
"""Extremes of each type of number."""
TEXTS = (
    "",
    " ",
    "nan",
    "-1",
    "../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "file://[x",
    "http://[::1]:1/x",
    "C:\\video.mp4",
    "a\\b.mp4",
    "[bold]x[/]",
    "x" * 300,
    "ü" * 5000,
    "x\n\x1b[31m",
    "%s%n%03d",
    "\u202e\u0000",
    "由AI配音",
    "\u05d0\u05d9",
    "W" * 60,
    "e\u0301" * 60,
    "concat:a|b",
    "https://example.invalid/" + "a/" * 4000,
)
"""Texts for any field that takes text."""
_FILLS = (float("nan"), float("inf"), 3e38, -1e30, 1e300, 0.0, 1e-30, 5e-324)


@dataclass(frozen=True, slots=True)
class Mutated:
    """A stream of requests as bytes, and what was done to it."""

    what: str
    data: list[bytes]


def numbers_of(message: Message, path: str = "") -> Iterator[tuple[str, Message, Any]]:
    """Path, message and descriptor of every field of a message and of what it holds, set or not; messages that hold themselves are
    followed where they are set."""
    for field in message.DESCRIPTOR.fields:
        here = f"{path}.{field.name}".lstrip(".")
        yield here, message, field
        if field.message_type is None:
            continue
        if field.is_repeated:
            for index, part in enumerate(list(getattr(message, field.name))[:2]):
                yield from numbers_of(part, f"{here}[{index}]")
        elif message.HasField(field.name):
            yield from numbers_of(getattr(message, field.name), here)


def mutate(stream: list[Message], rng: Random, *, before: Callable[[list[Message]], None] | None = None) -> Mutated:
    """A stream with one to three mutations; `before` is told of the copies that are mutated."""
    messages = [type(message).FromString(message.SerializeToString()) for message in stream]
    if before is not None:
        before(messages)
    said: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        index = rng.randrange(len(messages))
        said.append(f"[{index}] {_mutate_field(messages[index], rng)}")
    data = [message.SerializeToString() for message in messages]
    if rng.random() < 0.2:
        change = rng.choice(STREAM_CHANGES)
        said.append(change.__name__.strip("_"))
        data = change(data, rng)
    return Mutated("; ".join(said), data)


def _mutate_field(message: Message, rng: Random) -> str:
    fields = list(numbers_of(message))
    if not fields:
        return "nothing to change"
    path, owner, field = rng.choice(fields)
    if isinstance(owner, common_pb2.Tensor) and rng.random() < 0.8:
        return f"{path.rpartition('.')[0]}: {_mutate_tensor(owner, rng)}"
    if field.is_repeated:
        return f"{path}: {_mutate_repeated(owner, field, rng)}"
    if field.message_type is not None:
        if owner.HasField(field.name) and rng.random() < 0.7:
            owner.ClearField(field.name)
            return f"{path}: cleared"
        getattr(owner, field.name).SetInParent()
        return f"{path}: set to an empty message"
    value = _value(field, getattr(owner, field.name), rng)
    setattr(owner, field.name, value)
    return f"{path} = {value!r:.60}"


def _value(field: Any, before: Any, rng: Random) -> Any:
    if field.cpp_type in NUMBERS:
        return rng.choice(NUMBERS[field.cpp_type])
    if field.type == Field.TYPE_BYTES:
        return rng.choice(
            (b"", before[:-1], before[: len(before) // 2], before + b"\0", before * 2, rng.randbytes(len(before) or 7))
        )
    texts = (*TEXTS, before[:-1], before + "x", before.upper(), before.replace("/", "//"), before[::-1])
    return rng.choice(texts).replace("\u0000", "\u0001")


def _mutate_repeated(owner: Message, field: Any, rng: Random) -> str:
    values = getattr(owner, field.name)
    kind = rng.choice(("cleared", "doubled", "one less", "one changed", "very many"))
    if kind == "cleared" or (not len(values) and field.message_type is not None):
        owner.ClearField(field.name)
        return "cleared"
    if field.message_type is not None:
        values.extend(list(values) * (1 if kind != "very many" else 500))
        return "more messages"
    if kind == "one less" and len(values):
        del values[-1]
    elif kind == "one changed" and len(values):
        values[rng.randrange(len(values))] = _value(field, values[0], rng)
    else:
        before = list(values) or [_value(field, 0 if field.cpp_type in NUMBERS else "", rng)]
        values.extend(before * (1 if kind == "doubled" else 50_000 // len(before)))
    return kind


def _mutate_tensor(tensor: common_pb2.Tensor, rng: Random) -> str:
    """Wrong types, shapes and strides, and right ones full of numbers that are none."""
    kind = rng.choice(tuple(TENSOR_CHANGES))
    TENSOR_CHANGES[kind](tensor, rng)
    return kind


def _filled(tensor: common_pb2.Tensor, rng: Random) -> None:
    dtype = {common_pb2.DATA_TYPE_FLOAT32: "<f4", common_pb2.DATA_TYPE_FLOAT64: "<f8"}.get(tensor.data_type)
    if dtype is None:
        tensor.data = rng.randbytes(len(tensor.data))
        return
    with np.errstate(over="ignore"):
        fill = np.asarray(rng.choice(_FILLS)).astype(dtype)
    # An earlier change may have cut a number in two.
    whole = len(tensor.data) - len(tensor.data) % np.dtype(dtype).itemsize
    values = np.frombuffer(tensor.data[:whole], dtype).copy()
    if len(values):
        values[:: rng.choice((1, 7, len(values)))] = fill
    tensor.data = values.tobytes()


def _shape(change: Callable[[list[int], Random], list[int]]) -> Callable[[common_pb2.Tensor, Random], None]:
    def changed(tensor: common_pb2.Tensor, rng: Random) -> None:
        shape = change(list(tensor.shape), rng)
        del tensor.shape[:]
        tensor.shape.extend(shape)

    return changed


def _other_type(tensor: common_pb2.Tensor, rng: Random) -> None:
    tensor.data_type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 99))  # type: ignore[assignment]


def _other_array(tensor: common_pb2.Tensor, rng: Random) -> None:
    shape = [rng.choice((0, 1, 3, 7)) for _ in range(rng.randrange(5))]
    tensor.CopyFrom(to_tensor(np.zeros(shape, rng.choice((np.float32, np.float64, np.uint8, np.int64)))))


TENSOR_CHANGES: dict[str, Callable[[common_pb2.Tensor, Random], None]] = {
    "numbers that are none": _filled,
    "another type": _other_type,
    "another array": _other_array,
    "axes turned round": _shape(lambda shape, _: shape[::-1]),
    "one axis more": _shape(lambda shape, _: [*shape, 1]),
    "one axis less": _shape(lambda shape, _: shape[1:]),
    "a negative length": _shape(lambda shape, _: [-1, *shape[1:]]),
    "lengths whose product overflows": _shape(lambda shape, _: [2**32, 2**32, *shape[1:]]),
    "a very long axis": _shape(lambda shape, _: [2**62, *shape[1:]]),
    "fifty axes": _shape(lambda shape, _: shape + [1] * 50),
    "a byte less": lambda tensor, _: setattr(tensor, "data", tensor.data[:-1]),
    "every other byte": lambda tensor, _: setattr(tensor, "data", tensor.data[::2]),
    "twice the bytes": lambda tensor, _: setattr(tensor, "data", tensor.data * 2),
}


def _first_twice(data: list[bytes], _: Random) -> list[bytes]:
    return [data[0], *data]


def _without_first(data: list[bytes], _: Random) -> list[bytes]:
    return data[1:]


def _last_twice(data: list[bytes], _: Random) -> list[bytes]:
    return [*data, data[-1]]


def _turned_round(data: list[bytes], _: Random) -> list[bytes]:
    return data[::-1]


def _a_gap(data: list[bytes], _: Random) -> list[bytes]:
    return [data[0], *data[2:]]


def _nothing(data: list[bytes], _: Random) -> list[bytes]:
    return []


def _cut_bytes(data: list[bytes], rng: Random) -> list[bytes]:
    return [part[: rng.randrange(len(part))] if part else part for part in data]


def _flipped_bits(data: list[bytes], rng: Random) -> list[bytes]:
    out = []
    for part in data:
        flipped = bytearray(part)
        for _ in range(rng.choice((1, 3, 20)) if part else 0):
            flipped[rng.randrange(min(len(part), 400))] ^= 1 << rng.randrange(8)
        out.append(bytes(flipped))
    return out


def _noise(data: list[bytes], rng: Random) -> list[bytes]:
    return [rng.randbytes(rng.choice((1, 7, 200))) for _ in data]


def _unknown_fields(data: list[bytes], _: Random) -> list[bytes]:
    return [part + b"\xfa\x7f\x04evil" * 3 for part in data]


STREAM_CHANGES: tuple[Callable[[list[bytes], Random], list[bytes]], ...] = (
    _first_twice,
    _without_first,
    _last_twice,
    _turned_round,
    _a_gap,
    _nothing,
    _cut_bytes,
    _flipped_bits,
    _noise,
    _unknown_fields,
)


def not_finite(message: Message, path: str = "") -> str:
    """The first field of an answer that holds NaN or infinity; empty where none does."""
    if isinstance(message, common_pb2.Tensor):
        dtype = {common_pb2.DATA_TYPE_FLOAT32: "<f4", common_pb2.DATA_TYPE_FLOAT64: "<f8"}.get(message.data_type)
        return path if dtype and not np.isfinite(np.frombuffer(message.data, dtype)).all() else ""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}".lstrip(".")
        values = list(value) if field.is_repeated else [value]
        if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
            if not np.isfinite(values).all():
                return here
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in values:
                if found := not_finite(part, here):
                    return found
    return ""
