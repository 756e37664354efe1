"""Names of the gateway's resources, and other fields that callers give as short texts."""

from __future__ import annotations

import difflib
import inspect
import re
import uuid
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, get_args, get_type_hints

from google.protobuf.message import Message

from dubstage.gateway.v1 import dub_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
T = TypeVar("T")

_POINT: Final = re.compile(r" *(\d{1,6}(?:\.\d{0,9})?) *, *(\d{1,6}(?:\.\d{0,9})?) *", re.ASCII)
_OTHER_NAMES: Final = {
    "skip_personalization": "give personalize=False in place of skip_personalization=True",
    "audio": "did you mean speech?",
}
"""Advice for arguments that the contract or the command line has under another name."""


def resource_name(collection: str, id_or_name: str) -> str:
    """Return the name of a resource, such as `actors/ada` for `ada`. A name with its collection, and an empty text, stay."""
    return id_or_name if not id_or_name or id_or_name.startswith(f"{collection}/") else f"{collection}/{id_or_name}"


def resource_id(name: str) -> str:
    """Return the last part of the name of a resource, such as `ada` of `actors/ada`."""
    return name.rpartition("/")[2]


def explaining_names(build: Callable[P, T]) -> Callable[P, T]:
    """Return a function that answers an argument of another name with a TypeError which says what the argument is called."""
    arguments = _arguments(build)

    @wraps(build)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in arguments:
                what = f"{getattr(build, '__name__', 'the call')}()"
                raise TypeError(f"{what} has no argument {name!r}: {advice(name, arguments)}")
        return build(*args, **kwargs)

    return explained


def advice(name: str, names: Sequence[str]) -> str:
    """Return what to write in place of an unknown name: the name that was meant, or all names that there are."""
    near = difflib.get_close_matches(name, names, 1)
    return _OTHER_NAMES.get(name) or (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}")


def _arguments(build: Callable[..., Any]) -> list[str]:
    """Return the names of a function's arguments, with those of the TypedDict of its keyword arguments."""
    names: list[str] = []
    for name, argument in inspect.signature(build).parameters.items():
        if argument.kind is inspect.Parameter.VAR_KEYWORD:
            (options,) = get_args(get_type_hints(build)[name])
            names += options.__annotations__
        else:
            names.append(name)
    return names


def face_fields(face: str | int | dub_pb2.FaceBox) -> dict[str, Any]:
    """Return the fields of a request that choose a face.

    Args:
        face: "largest", "speaker", a face id (a number, or its text), "X,Y" in pixels of the first frame, or a box in the same
            frame; empty: no choice.

    Raises:
        ValueError: the text is none of these.
    """
    if isinstance(face, dub_pb2.FaceBox):
        return {"box": face}
    # A number, of which 0 is a face too.
    face = face if isinstance(face, str) else str(face)
    if not face:
        return {}
    if face in ("largest", "speaker"):
        return {"face_rule": dub_pb2.FaceRule.Value(f"FACE_RULE_{face.upper()}")}
    if face.isascii() and face.isdecimal() and len(face) < 10:
        return {"face_id": int(face)}
    if point := _POINT.fullmatch(face):
        return {"point": dub_pb2.FacePoint(x=float(point[1]), y=float(point[2]))}
    raise ValueError(f"face takes largest, speaker, the number of a face (such as 0) or X,Y (such as 320,180), not {face[:80]!r}")


def step_name(step: int) -> str:
    """Return the name of an OperationStep as progress shows it, such as `enrol bank`."""
    is_named = step in pb.OperationStep.values()
    return pb.OperationStep.Name(step).removeprefix("OPERATION_STEP_").lower().replace("_", " ") if is_named else str(step)  # type: ignore[arg-type]


def identified(request: M) -> M:
    """Return a request with a `request_id`, so that the request can be sent twice. Requests without this field stay."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name or getattr(request, "request_id"):  # noqa: B009 - not every message has it
        return request
    sent = type(request)()
    sent.CopyFrom(request)
    sent.request_id = str(uuid.uuid4())  # type: ignore[attr-defined]
    return sent
