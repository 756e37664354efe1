"""JSON of callers."""

import json

import pytest

from gateway.json_texts import read_json


@pytest.mark.parametrize(
    "data",
    [
        rb'{"\ud800": 1}',
        rb'["\uDFFF"]',
        rb'{"a": {"b": ["\udc00\ud800"]}}',
        b'"\xed\xa0\x80"',
        '"\ud800"'.encode("utf-16-le", "surrogatepass"),
        b"{",
        b"[" * 300_000,
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b'"' + rb"\"" * 300_000,
        b"{}" + b"]" * 300_000,
        b"[[]" * 101,
    ],
)
def test_other_texts_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"character|decode|levels|Expecting|Unterminated|delimiter|Extra"):
        read_json(data)


def test_brackets_in_strings_are_text() -> None:
    value = {"a": "[" * 1000 + '\\"' + "{" * 1000, "b": [[[1]]]}
    assert read_json(json.dumps(value)) == value
    assert read_json("[" * 100 + "]" * 100)


def test_pairs_of_halves_are_read() -> None:
    """Emoji as ASCII, and backslashes before `ud`, are read."""
    wanted = {"\N{GRINNING FACE}": ["\\ud800", "C:\\ud"]}
    assert read_json(json.dumps(wanted).encode()) == wanted
    assert read_json("\ufeff[1]".encode()) == [1]
