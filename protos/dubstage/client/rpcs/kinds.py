"""The four kinds of RPC as frozen descriptions: service, method, and the classes of request and response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

Q = TypeVar("Q", bound=Message)
R_co = TypeVar("R_co", bound=Message, covariant=True)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Q, R_co]):
    """One RPC of one service.

    Attributes:
        service: full name, such as "dubstage.motion.v1alpha1.MotionService".
        method: name in the contract, such as "EncodeStyle".
        request, response: message classes. A streaming side sends many messages of its class.
    """

    service: str
    method: str
    request: type[Q]
    response: type[R_co]

    @property
    def path(self) -> str:
        """Return the path that gRPC sends: "/service/method"."""
        return f"/{self.service}/{self.method}"

    @property
    def serialisers(self) -> dict[str, Any]:
        """Return the keyword arguments by which a gRPC channel makes a callable of this RPC."""
        return {"request_serializer": self.request.SerializeToString, "response_deserializer": self.response.FromString}


class Unary(Rpc[Q, R_co]):
    """One request, one response."""

    __slots__ = ()


class Upload(Rpc[Q, R_co]):
    """Many requests, one response."""

    __slots__ = ()


class Download(Rpc[Q, R_co]):
    """One request, many responses."""

    __slots__ = ()


class Stream(Rpc[Q, R_co]):
    """Many requests, many responses, at the same time."""

    __slots__ = ()
