"""The table of methods, and combinations of their parts."""

from __future__ import annotations

import pytest

from gateway.methods import METHODS, combined, method_named
from services.common.errors import InvalidRequest


def test_a_method_without_changes_is_itself() -> None:
    for name in METHODS:
        assert combined(name) == name


def test_another_motion_predictor_makes_a_combination() -> None:
    name = combined("ugc", motion="everybody")
    method = method_named(name)
    assert (method.motion, method.renderer) == ("everybody", "ugc")
    assert combined(name, motion="ugc") == "ugc"


@pytest.mark.parametrize("name", ["", "nobody", "everybody+", "+ugc", "ugc+nobody", "ugc+ugc+ugc"])
def test_what_is_not_there_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(InvalidRequest, match="there are: everybody, headpose, ugc"):
        method_named(name)


@pytest.mark.parametrize("field", ["motion", "renderer"])
def test_an_unknown_part_is_named(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"no {field} 'nobody'") as caught:
        combined("ugc", **{field: "nobody"})
    assert caught.value.field == field


def test_the_head_moves_where_the_motion_predictor_says_so() -> None:
    assert [name for name in METHODS if METHODS[name].moves_head] == ["headpose"]
    assert method_named("headpose+ugc").moves_head
    assert not method_named("ugc+headpose").moves_head


def test_a_picture_is_footage_for_what_moves_the_head_and_draws_the_face() -> None:
    assert method_named("headpose").takes_still
    assert not any(method_named(name).takes_still for name in ("ugc", "everybody", "headpose+ugc", "ugc+headpose"))
