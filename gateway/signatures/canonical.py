"""The canonical form of JSON documents: equal documents have equal bytes."""

from __future__ import annotations

import json
from typing import Any


def canonical(document: Any) -> bytes:
    """Return a JSON document as ASCII without line breaks: sorted keys, no spaces, every other character escaped.

    Raises:
        ValueError: the document holds a number that JSON does not have.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def plain_json(content: bytes) -> Any:
    """Return the JSON document of a text.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found
