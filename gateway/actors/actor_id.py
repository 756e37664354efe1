"""Ids of actors: which texts are allowed, and the errors for unknown and taken ids."""

from __future__ import annotations

import re
from typing import Final

from services.common.errors import ActorNotReady, InvalidRequest

_ALLOWED: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_actor_id(text: str) -> bool:
    """Return whether a text is allowed as the id of an actor. The database is asked for allowed ids only."""
    return _ALLOWED.fullmatch(text) is not None


def check_actor_id(actor_id: str) -> str:
    """Return an id that is allowed: lower-case letters, digits and inner dashes, at most 63 characters.

    Raises:
        InvalidRequest: the id is not allowed.
    """
    if not is_actor_id(actor_id):
        raise InvalidRequest(
            f"actor_id: {actor_id[:80]!r} is not allowed: an actor id has lower-case letters, digits and inner dashes, at most 63 "
            "characters",
            field="actor_id",
        )
    return actor_id


def not_enrolled(actor_id: str) -> ActorNotReady:
    """Return the error for an id that no actor has."""
    return ActorNotReady(
        f"no actor {actor_id!r} is enrolled: `dubstage actor list` shows the actors, `dubstage actor create` enrols one",
        subject=actor_id,
    )


def taken(actor_id: str) -> InvalidRequest:
    """Return the error for an id that another actor has."""
    return InvalidRequest(
        f"there is an actor {actor_id!r} already: erase it first (`dubstage actor erase {actor_id}`), or choose another id",
        field="actor_id",
    )
