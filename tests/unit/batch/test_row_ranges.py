"""Tests of rows as text, such as `0-3,7`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batch.row_ranges import format_rows, parse_rows
from services.common.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "rows"), [("", ()), ("7", (7,)), ("0-3,7", (0, 1, 2, 3, 7)), ("1,3-4,6", (1, 3, 4, 6)), ("5-5", (5,))]
)
def test_rows_are_read(text: str, rows: tuple[int, ...]) -> None:
    assert parse_rows(text) == rows


def test_row_ranges_are_compact() -> None:
    """Rows are written short in any order and once."""
    assert format_rows([7, 3, 1, 2, 3, 0]) == "0-3,7"
    assert format_rows([]) == ""


@given(st.sets(st.integers(0, 500)))
@settings(deadline=None)
def test_what_is_written_is_read(rows: set[int]) -> None:
    assert parse_rows(format_rows(rows)) == tuple(sorted(rows))


@pytest.mark.parametrize("text", ["a", "3-1", "1,1", "5,3", "0-3,2", "-1", "1,,2", "1 ,2", "²", "9999999999"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="such as 0-3,7"):
        parse_rows(text)


@pytest.mark.parametrize("text", ["0-999999999", "7,100000", "99999-100000"])
def test_absent_rows_refused_before_counting(text: str) -> None:
    """Rows that no batch has are refused before they are counted."""
    with pytest.raises(InvalidRequestError, match="a batch has at most the rows 0 to 99999"):
        parse_rows(text)
    assert parse_rows("99998-99999") == (99998, 99999)
