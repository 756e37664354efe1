"""The token that a connection sends: what is around it does not count, what no header can carry is named."""

from __future__ import annotations

import pytest

from dubstage.client import connect


@pytest.mark.parametrize("token", ["abc\n", " abc", "abc\r\n", "\tabc "])
def test_what_is_around_a_token_does_not_count(token: str) -> None:
    with connect("localhost:1", token=token) as connection:
        assert connection._metadata == (("authorization", "Bearer abc"),)


@pytest.mark.parametrize("token", ["", " \n", None])
def test_no_token_is_none(token: str | None) -> None:
    with connect("localhost:1", token=token) as connection:
        assert connection._metadata == ()


@pytest.mark.parametrize(("token", "place"), [("ab\ncd", 3), ("ab cd", 3), ("abcdé", 5), ("ab\0", 3)])
def test_invalid_token_is_not_shown(token: str, place: int) -> None:
    """A token that no header can carry is refused without showing it."""
    with pytest.raises(ValueError, match=rf"character {place} of") as caught:
        connect("localhost:1", token=token)
    assert token not in str(caught.value)
