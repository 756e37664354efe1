"""Every number, string, bytes and repeated field of every request has a range, and each range is kept at both of its ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import pytest
from google.api import field_behavior_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dubstage.audio.v1 import audio_pb2
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from services.common.errors import InvalidRequestError
from services.common.server.bounds import check_bounds, declared
from tests.contracts import CONTRACTS, GATEWAY
from tests.refusals import raised

SERVICES: Final[list[ServiceDescriptor]] = [
    service for module in CONTRACTS for service in module.DESCRIPTOR.services_by_name.values()
]
REQUESTS: Final = {method.input_type.full_name: method.input_type for service in SERVICES for method in service.methods}
LEAST: Final = {
    FieldDescriptor.CPPTYPE_INT32: -(1 << 31),
    FieldDescriptor.CPPTYPE_UINT32: 0,
    FieldDescriptor.CPPTYPE_INT64: -(1 << 63),
    FieldDescriptor.CPPTYPE_UINT64: 0,
}
MOST: Final = {
    FieldDescriptor.CPPTYPE_INT32: (1 << 31) - 1,
    FieldDescriptor.CPPTYPE_UINT32: (1 << 32) - 1,
    FieldDescriptor.CPPTYPE_INT64: (1 << 63) - 1,
    FieldDescriptor.CPPTYPE_UINT64: (1 << 64) - 1,
}
FLOATS: Final = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}
LARGEST_TESTED_BYTES: Final = 1 << 20
"""Longer fields are not filled here: `num_bytes` and the limit of messages hold them."""

Path = tuple[FieldDescriptor, ...]


def fields(descriptor: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Every field of a message and of the messages in it, as the fields that lead to it."""
    for field in descriptor.fields:
        path = (*above, field)
        yield path
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            yield from fields(field.message_type, path)


ALL: Final = [(request, path) for request in REQUESTS.values() for path in fields(request)]


def dotted(path: Path) -> str:
    return ".".join(field.name for field in path)


def holding(request: Descriptor, path: Path, values: list[Any]) -> Message:
    """A request with the values in the field at `path`, and nothing in the others."""
    message: Any = GetMessageClass(request)()
    place = message
    for field in path[:-1]:
        place = getattr(place, field.name)
        if field.is_repeated:
            place = place.add()
        else:
            place.SetInParent()
    last = path[-1]
    if last.is_repeated:
        getattr(place, last.name).extend(values)
    else:
        setattr(place, last.name, values[0])
    return message  # type: ignore[no-any-return]


def is_refused_for(request: Descriptor, path: Path, values: list[Any]) -> bool:
    """Whether just this field is refused; unset neighbours that may not be unset are filled with something allowed first."""
    message = holding(request, path, values)
    for _ in range(16):
        try:
            check_bounds(message)
        except InvalidRequestError as error:
            if error.field == dotted(path):
                return True
            fill(message, error.field)
        else:
            return False
    raise AssertionError(f"cannot fill {request.full_name} around {dotted(path)}")


def fill(message: Any, field: str) -> None:
    *above, name = field.split(".")
    for part in above:
        message = getattr(message, part)
        message = message[0] if hasattr(message, "__len__") else message
    described = message.DESCRIPTOR.fields_by_name[name]
    if described.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        getattr(message, name).SetInParent()
        return
    if described.enum_type is not None:
        setattr(message, name, described.enum_type.values[1].number)
        return
    bounds = declared(described)
    assert bounds is not None
    setattr(message, name, "x" if described.cpp_type == FieldDescriptor.CPPTYPE_STRING else int(bounds.min))


def test_every_field_of_every_request_declares_its_range() -> None:
    missing = []
    for request, path in ALL:
        field = path[-1]
        bounds = declared(field)
        name = f"{request.full_name}: {dotted(path)}"
        if field.is_repeated and not (bounds and bounds.max_items):
            missing.append(f"{name} (max_items)")
        if field.cpp_type in LEAST | dict.fromkeys(FLOATS) and not (bounds and bounds.max > bounds.min):
            missing.append(f"{name} (min, max)")
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not (bounds and bounds.max_bytes):
            missing.append(f"{name} (max_bytes)")
    assert missing == []
    assert len(REQUESTS) > 20
    assert len(ALL) > 200


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_number_range_is_inclusive(name: str) -> None:
    """A number is taken at the ends of its range and refused beyond."""
    request = REQUESTS[name]
    for path in fields(request):
        field, bounds = path[-1], declared(path[-1])
        if field.cpp_type not in LEAST and field.cpp_type not in FLOATS:
            continue
        assert bounds is not None
        if field.cpp_type in FLOATS:
            wrong = [-math.inf, math.inf, math.nan, 3e38, -3e38, bounds.max * 1.1 + 1, bounds.min - 1]
            right = [bounds.min, bounds.max if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else bounds.max * 0.999]
        else:
            low, high = LEAST[field.cpp_type], MOST[field.cpp_type]
            wrong = [number for number in (int(bounds.min) - 1, int(bounds.max) + 1, low, high) if low <= number <= high]
            wrong = [number for number in wrong if not bounds.min <= number <= bounds.max]
            right = [int(bounds.min), min(int(bounds.max), high)]
        for value in wrong:
            if bounds.zero_ok and value == 0:
                continue
            assert is_refused_for(request, path, [value]), f"{dotted(path)} = {value}"
        for value in right + [0] * bounds.zero_ok:
            assert not is_refused_for(request, path, [value]), f"{dotted(path)} = {value}"


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_length_and_enum_bounds(name: str) -> None:
    """A value that is too long is refused, and an enum has the numbers that it declares."""
    request = REQUESTS[name]
    for path in fields(request):
        field, bounds = path[-1], declared(path[-1])
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            for number in (-1, 1_000, (1 << 31) - 1):
                assert is_refused_for(request, path, [number])
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            assert bounds is not None
            if bounds.max_bytes <= LARGEST_TESTED_BYTES:
                empty: Any = "" if field.type == FieldDescriptor.TYPE_STRING else b""
                for unit, size in (("x", 1), ("ü", 2), ("😀", 4)) if empty == "" else ((b"x", 1),):
                    count = bounds.max_bytes // size
                    assert not is_refused_for(request, path, [empty + unit * count])
                    assert is_refused_for(request, path, [empty + unit * (count + 1)])
        if field.is_repeated and field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
            assert bounds is not None
            if bounds.max_items <= 1000:
                kinds = {FieldDescriptor.CPPTYPE_ENUM: 1, FieldDescriptor.CPPTYPE_STRING: "x"}
                one = kinds.get(field.cpp_type, int(bounds.max))
                assert is_refused_for(request, path, [one] * (bounds.max_items + 1))
                assert not is_refused_for(request, path, [one] * bounds.max_items)


def test_error_names_path_value_range() -> None:
    """The error names the path the value and the range."""
    rate = common_pb2.Rational(num=25, den=1 << 62)
    config = audio_pb2.ExtractFeaturesConfig(sample_rate_hz=8000, channels=1, timeline=common_pb2.Timeline(frame_rate=rate))
    with raised(InvalidRequestError, r": 4611686018427387904 .* 1 \.\. 2147483647$", field="config.timeline.frame_rate.den"):
        check_bounds(audio_pb2.ExtractFeaturesRequest(config=config))


def test_wrong_element_named_by_index() -> None:
    """One wrong element of many is named by its place."""
    pts = list(range(1000))
    pts[777] = 1 << 60
    times = common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=25), pts=pts)
    request = face_pb2.TrackRequest(config=face_pb2.TrackConfig(timeline=common_pb2.Timeline(explicit=times)))
    with pytest.raises(InvalidRequestError, match=r"config\.timeline\.explicit\.pts\[777\]: 1152921504606846976 is not within"):
        check_bounds(request)


def test_unset_fields_are_not_checked() -> None:
    """An unset message and an unset optional number are not looked into."""
    check_bounds(face_pb2.TrackRequest(config=face_pb2.TrackConfig()))
    check_bounds(face_pb2.TrackRequest())


def test_short_bytes_are_not_read() -> None:
    """Bytes that cannot be too long are not read."""
    uri = "x" * 3000
    ref = common_pb2.ArtefactRef(uri=uri)
    with pytest.raises(InvalidRequestError, match="uri: 3000 bytes long, at most 2048"):
        check_bounds(ref, num_bytes=ref.ByteSize())
    # A caller who states fewer bytes for the whole message than the field may have is believed.
    check_bounds(ref, num_bytes=2048)


@pytest.mark.parametrize("name", sorted(name for name in REQUESTS if name.startswith("dubstage.gateway.v1.")))
def test_required_fields_are_refused_unset(name: str) -> None:
    """A request without a required field is refused by the field's name, a number by its range."""
    required = [
        field.name
        for field in REQUESTS[name].fields
        if field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    ]
    for left in required:
        message = GetMessageClass(REQUESTS[name])()
        for other in required:
            if other != left:
                fill(message, other)
        with raised(InvalidRequestError, match=r"this field is required|: 0 is not within", field=left):
            check_bounds(message)


def test_behaviour_is_declared() -> None:
    """Every field of the gateway's requests and resources says whether it is required, optional or an output."""
    messages = {name: message for file in GATEWAY for name, message in file.DESCRIPTOR.message_types_by_name.items()}
    requests = [request for name, request in REQUESTS.items() if name.startswith("dubstage.gateway.v1.")]
    resources = [messages[name] for name in ("Actor", "Batch", "Shot", "Upload", "Webhook")]
    fields_of = [field for one in (*requests, *resources) if not one.name.endswith("LiveRequest") for field in one.fields]
    behaviour = {field.full_name: field.GetOptions().Extensions[field_behavior_pb2.field_behavior] for field in fields_of}
    assert [name for name, said in behaviour.items() if not said] == []
