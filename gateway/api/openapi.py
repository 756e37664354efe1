"""OpenAPI 3.1 of the routes of gateway/api/rest.py, from the contracts: their messages, bounds and comments.

JSON is protobuf's own mapping: fields in lowerCamelCase (requests also take the names of the contract), 64-bit integers as text,
bytes as base64, enums by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

from google.api import field_behavior_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

import dubstage
from dubstage.common.v1 import bounds_pb2

_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_SINT32: "int32",
    FieldDescriptor.TYPE_FIXED32: "uint32",
    FieldDescriptor.TYPE_SFIXED32: "int32",
}
_TEXTS: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptor.TYPE_STRING: {},
    FieldDescriptor.TYPE_BYTES: {"contentEncoding": "base64"},
    **{
        kind: {"format": name, "pattern": r"^-?\d+$"}
        for kind, name in (
            (FieldDescriptor.TYPE_INT64, "int64"),
            (FieldDescriptor.TYPE_UINT64, "uint64"),
            (FieldDescriptor.TYPE_SINT64, "int64"),
            (FieldDescriptor.TYPE_FIXED64, "uint64"),
            (FieldDescriptor.TYPE_SFIXED64, "int64"),
        )
    },
}
"""Types that are text in JSON."""
_NUMBERS: Final = {FieldDescriptor.TYPE_FLOAT: "float", FieldDescriptor.TYPE_DOUBLE: "double"}
_WELL_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": True,
        "description": "A message of any type: `@type` names the type, the other properties are its fields.",
    },
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$", "description": "Seconds, such as `1.5s`."},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
}
"""Messages with a JSON form of their own."""
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "status", "message", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The status of HTTP."},
                "status": {"type": "string", "description": "The status of gRPC, such as INVALID_ARGUMENT."},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/google.protobuf.Any"},
                    "description": "google.rpc.ErrorInfo (reason, stage), BadRequest (fields), RetryInfo and others.",
                },
            },
        }
    },
    "required": ["error"],
}
_DIGEST: Final = "SHA-256 of the whole file, `sha-256=:BASE64:` (RFC 9530)."
_PICTURE_RESPONSE: Final[dict[str, Any]] = {"description": "The picture.", "content": {"image/jpeg": {}}}
"""Answer of an RPC that gives a file in one message: pictures of people are the only such files."""
_FILE_RESPONSES: Final[dict[str, Any]] = {
    number: {
        "description": text,
        "headers": {"Repr-Digest": {"description": _DIGEST, "schema": {"type": "string"}}},
        "content": {"application/octet-stream": {}},
    }
    for number, text in (("200", "The file."), ("206", "The range of the file."))
} | {"416": {"description": "The file has none of these bytes."}}


class DescribedRoute(Protocol):
    """A route, as gateway.api.rest.HttpRoute describes one."""

    @property
    def verb(self) -> str:
        """Method of HTTP."""

    @property
    def template(self) -> str:
        """Path as the contract writes it."""

    @property
    def has_body(self) -> bool:
        """Whether the body is the request."""

    @property
    def takes_file(self) -> bool:
        """Whether the body is a file."""

    @property
    def gives_file(self) -> bool:
        """Whether the answer is a file."""

    @property
    def method(self) -> MethodDescriptor:
        """The RPC."""


@cache
def comments() -> dict[str, str]:
    """Return the comments of all messages, fields, enums, services and RPCs, by their full names."""
    # In a checkout, the generated contracts lie in another folder of the package than its own.
    contracts = next(path for folder in dubstage.__path__ if (path := Path(folder) / "contracts.binpb").is_file())
    image = descriptor_pb2.FileDescriptorSet.FromString(contracts.read_bytes())
    texts: dict[str, str] = {}
    for file in image.file:
        names = dict(_names(file))
        for location in file.source_code_info.location:
            text = re.sub(r"\s*\n\s*", " ", location.leading_comments).strip()
            if text and (name := names.get(tuple(location.path))):
                texts[f"{file.package}.{name}"] = text
    return texts


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the paths of descriptor.proto with the names of what they point to."""
    for number, message in enumerate(file.message_type):
        yield (4, number), message.name
        yield from (((4, number, 2, index), f"{message.name}.{field.name}") for index, field in enumerate(message.field))
    for number, enum in enumerate(file.enum_type):
        yield (5, number), enum.name
    for number, service in enumerate(file.service):
        yield (6, number), service.name
        yield from (((6, number, 2, index), f"{service.name}.{method.name}") for index, method in enumerate(service.method))


def openapi_document(routes: Iterable[DescribedRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of routes, as an object for JSON."""
    schemas: dict[str, Any] = {"Error": _ERROR, "google.protobuf.Any": _WELL_KNOWN["google.protobuf.Any"]}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        # OpenAPI has no pattern inside a variable: the collection stands before the variable, which is the rest of the name.
        path = route.template.replace("{name=batches/*/shots/*}", "batches/{batch}/shots/{shot}")
        path = re.sub(r"\{(\w+)=\*\*\}", r"{\1}", path)
        path = re.sub(r"\{\w+=(\w+)\}", r"\1", re.sub(r"\{(\w+)=(\w+)/\*+\}", r"\2/{\1}", path))
        paths.setdefault(path, {})[route.verb.lower()] = _operation(route, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dubstage",
            "version": metadata.version("dubstage"),
            "description": "The RPCs of the gateway over HTTP/JSON.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Needed where the gateway has a token file."}
            },
        },
    }


def _operation(route: DescribedRoute, path: str, schemas: dict[str, Any]) -> dict[str, Any]:
    request, method = route.method.input_type, route.method
    in_path = re.findall(r"\{(\w+)\}", path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _in_path(request.fields_by_name.get(name), schemas)}
        for name in in_path
    ]
    for parameter in parameters:
        if parameter["name"] not in request.fields_by_name:
            parameter["description"] = "The id of the resource."
        elif re.search(rf"\{{{parameter['name']}=\w", route.template):
            parameter["description"] = "The name of the resource without its collection."
        elif text := comments().get(request.fields_by_name[parameter["name"]].full_name):
            parameter["description"] = text
    fixed = re.findall(r"\{(\w+)=", route.template)
    ranged = route.gives_file and method.server_streaming
    responses = _FILE_RESPONSES if ranged else {"200": _PICTURE_RESPONSE if route.gives_file else _response(method, schemas)}
    operation: dict[str, Any] = {
        "operationId": method.name,
        "tags": [method.containing_service.name],
        "parameters": parameters,
        "responses": {
            **responses,
            "default": {
                "description": "The request failed.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if text := comments().get(method.full_name):
        operation["description"] = text
    if route.takes_file:
        parameters += _upload_headers()
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    elif ranged:
        parameters += [_header("Range", "One range of bytes, such as `bytes=0-99`."), _header("If-Range", "The ETag of the file.")]
    elif route.has_body:
        example = _example(request, {*in_path, *fixed})
        operation["requestBody"] = {"content": {"application/json": {"schema": _reference(request, schemas), "example": example}}}
    else:
        parameters += [
            {"name": field.json_name, "in": "query", "schema": _field(field, schemas)}
            for field in request.fields
            if field.name not in (*in_path, *fixed) and field.type != FieldDescriptor.TYPE_MESSAGE
        ]
    return operation


def _in_path(field: FieldDescriptor | None, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a variable in a path; None: the variable is a part of a field."""
    return {"type": "string"} if field is None else _field(field, schemas, described=False)


def _upload_headers() -> list[dict[str, Any]]:
    return [
        _header(
            "Content-Range", "`bytes FIRST-LAST/SIZE`: the part of the file in the body. Without it, the body is the whole file."
        ),
        _header("Repr-Digest", f"{_DIGEST} A file with another digest is refused."),
    ]


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _response(method: MethodDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = _reference(method.output_type, schemas)
    if method.server_streaming:
        text = "Server-Sent Events: one event per message, then the event `end`, or the event `error`."
        return {"description": text, "content": {"text/event-stream": {"schema": schema}}}
    response: dict[str, Any] = {"description": "The answer.", "content": {"application/json": {"schema": schema}}}
    if method.name == "GetOperation":
        response["description"] = "The operation. As text/event-stream: one event per change, then the event `end`."
        response["content"]["text/event-stream"] = {"schema": schema}
    return response


def _example(message: Descriptor, given: Collection[str] = ()) -> dict[str, Any]:
    """Return a message with its required fields alone, to fill in: an example with all fields would be refused.

    Args:
        message: the message.
        given: fields that the path gives.
    """
    example: dict[str, Any] = {}
    for field in message.fields:
        required = field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if required and field.name not in given:
            value = _example_value(field)
            example[field.json_name] = [value] if field.is_repeated else value
    return example


def _example_value(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _example(field.message_type)
    if field.enum_type is not None:
        return field.enum_type.values[1].name
    return "" if field.type in _TEXTS else 0


def _reference(message: Descriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    name = message.full_name
    if name not in schemas:
        schemas[name] = _WELL_KNOWN.get(name, {})
        if name not in _WELL_KNOWN:
            schemas[name] |= {
                "type": "object",
                "properties": {field.json_name: _field(field, schemas) for field in message.fields},
                **({"description": text} if (text := comments().get(name)) else {}),
            }
    return {"$ref": f"#/components/schemas/{name}"}


def _enum(enum: EnumDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    schemas[enum.full_name] = {
        "type": "string",
        "enum": [value.name for value in enum.values],
        **({"description": text} if (text := comments().get(enum.full_name)) else {}),
    }
    return {"$ref": f"#/components/schemas/{enum.full_name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any], *, described: bool = True) -> dict[str, Any]:
    options = field.GetOptions()
    bounds = options.Extensions[bounds_pb2.bounds] if options.HasExtension(bounds_pb2.bounds) else None
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": _single(field.message_type.fields_by_name["value"], None, schemas),
        }
    elif field.is_repeated:
        schema = {"type": "array", "items": _single(field, bounds, schemas)}
        if bounds is not None and bounds.max_items:
            schema["maxItems"] = bounds.max_items
    else:
        schema = _single(field, bounds, schemas)
    text = comments().get(field.full_name) if described else None
    return {**schema, "description": text} if text else schema


def _single(field: FieldDescriptor, bounds: bounds_pb2.Bounds | None, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type, schemas)
    if field.enum_type is not None:
        return _enum(field.enum_type, schemas)
    kind = field.type
    if kind in _TEXTS:
        longest = {"maxLength": bounds.max_bytes} if bounds is not None and bounds.max_bytes and not _TEXTS[kind] else {}
        return {"type": "string", **_TEXTS[kind], **longest}
    if kind == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    return _number(field, bounds)


def _number(field: FieldDescriptor, bounds: bounds_pb2.Bounds | None) -> dict[str, Any]:
    integer = field.type in _INTEGERS
    schema: dict[str, Any] = {
        "type": "integer" if integer else "number",
        "format": _INTEGERS.get(field.type) or _NUMBERS[field.type],
    }
    if bounds is not None and bounds.max > bounds.min:
        low = min(0.0, bounds.min) if bounds.zero_ok else bounds.min
        schema |= {"minimum": int(low) if integer else low, "maximum": int(bounds.max) if integer else bounds.max}
    return schema
