"""Calls of the former contracts, v1alpha1, which the handlers of v1 answer for one release.

The messages of the stages are the same on the wire in both versions, so the handler of v1 answers the former path. Messages of the
gateway that differ have handlers of their own (`gateway.api.former`). Each answer to a former call has the entry DEPRECATION.
"""

from __future__ import annotations

import re
from typing import Any, Final

DEPRECATION: Final = ("deprecation", "@1795651200")
"""Entry of the trailing metadata, and header of HTTP: since 2026-11-26 the former contracts are deprecated (RFC 9745)."""
_FORMER: Final = re.compile(r"(/?dubstage\.[a-z]+)\.v1alpha1\.")
_CURRENT: Final = re.compile(r"(/?dubstage\.[a-z]+)\.v1\.")


def is_former(name: str) -> bool:
    """Return whether a full name of a service or the path of a method belongs to the former contracts."""
    return _FORMER.match(name) is not None


def current_name(name: str) -> str:
    """Return the name in v1 of a service or method. Other names stay."""
    return _FORMER.sub(r"\1.v1.", name, count=1)


def former_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the former names of services of v1; services that are not dubstage's have none."""
    return tuple(_CURRENT.sub(r"\1.v1alpha1.", name, count=1) for name in names if _CURRENT.match(name))


def current_call(details: Any) -> Any:
    """Return what gRPC knows of a former call before the call has a handler, with the name of the method in v1.

    gRPC takes only objects of its own class.
    """
    return type(details)(current_name(str(details.method)), details.invocation_metadata)
