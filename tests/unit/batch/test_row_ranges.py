"""Rows as text, as Kubernetes writes indexes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batch.row_ranges import format_rows, parse_rows
from services.common.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "rows"), [("", ()), ("7", (7,)), ("0-3,7", (0, 1, 2, 3, 7)), ("1,3-4,6", (1, 3, 4, 6)), ("5-5", (5,))]
)
def test_rows_are_read(text: str, rows: tuple[int, ...]) -> None:
    assert parse_rows(text) == rows


def test_rows_are_written_short_in_any_order_and_once() -> None:
    assert format_rows([7, 3, 1, 2, 3, 0]) == "0-3,7"
    assert format_rows([]) == ""


@given(st.sets(st.integers(0, 500)))
@settings(deadline=None)
def test_what_is_written_is_read(rows: set[int]) -> None:
    assert parse_rows(format_rows(rows)) == tuple(sorted(rows))


@pytest.mark.parametrize("text", ["a", "3-1", "1,1", "5,3", "0-3,2", "-1", "1,,2", "1 ,2", "²", "9999999999"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match="such as 0-3,7"):
        parse_rows(text)


@pytest.mark.parametrize("text", ["0-999999999", "7,100000", "99999-100000"])
def test_rows_that_no_batch_has_are_refused_before_they_are_counted(text: str) -> None:
    with pytest.raises(InvalidRequest, match="a batch has at most the rows 0 to 99999"):
        parse_rows(text)
    assert parse_rows("99998-99999") == (99998, 99999)
