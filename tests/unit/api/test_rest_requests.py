"""Requests of RPCs from JSON."""

from __future__ import annotations

import json

import pytest

from gateway.api.rest import ROUTES, request_message
from services.common.errors import InvalidRequestError

CREATE_DUB = next(route for route in ROUTES if route.method.name == "CreateDub")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (rb'{"\ud800": 1}', "no character"),
        (rb'{"fit": "\ud800"}', "no character"),
        (rb'{"method": "\ud800"}', "no character"),
        (b'{"fit": 1e400}', "infinity"),
        (b'{"point": {"x": %b}}' % (b"9" * 400), "too large"),
    ],
)
def test_values_no_message_holds_are_refused(spec: bytes, said: str) -> None:
    """Halves of characters, and numbers that are too large, are refused, and are no fault of the gateway."""
    with pytest.raises(InvalidRequestError, match=said):
        request_message(CREATE_DUB, "/v1/dubs", (), b'{"dub": %b}' % spec)


def test_whole_characters_are_kept() -> None:
    body = json.dumps({"dub": {"footageUri": "\N{GRINNING FACE}.mp4"}}).encode()
    message = request_message(CREATE_DUB, "/v1/dubs", (), body)
    assert message.dub.footage_uri == "\N{GRINNING FACE}.mp4"  # type: ignore[attr-defined]
