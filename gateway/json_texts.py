"""JSON of callers, whose texts can be part of messages."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MOST_LEVELS: Final = 100
"""Most levels of brackets. Messages have fewer. Python's parser recurses: near the end of Python's stack, calls that broke off,
which the garbage collector may finalise meanwhile, cannot be ended."""
_PART: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]++|[\]}]++', re.DOTALL)
"""A string (or the rest of a text that ends inside of one), opening brackets, or closing brackets."""


def read_json(data: bytes | str, **hooks: Any) -> Any:
    r"""Return the value of a JSON text.

    Messages, databases and files take texts in UTF-8 alone. JSON can write half of a character, such as "\ud800".

    Args:
        data: the text, in UTF-8; a mark of the byte order may come first.
        hooks: arguments of json.loads.

    Raises:
        json.JSONDecodeError: the text is no JSON.
        ValueError: the text is not in UTF-8, has more than MOST_LEVELS levels of brackets or half of a character, or a hook refuses
            the text.
    """
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    if _is_deep(text):
        raise ValueError(f"more than {MOST_LEVELS} levels of brackets")
    value = json.loads(text, **hooks)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as problem:
            half = ord(problem.object[problem.start])
            raise ValueError(f"\\u{half:04x} without its other half is no character") from None
    return value


def _is_deep(text: str) -> bool:
    """Return whether more than MOST_LEVELS brackets are open at once; brackets in strings do not count."""
    if text.count("[") + text.count("{") <= MOST_LEVELS:
        return False
    level = 0
    for part in _PART.finditer(text):
        match part[0][0]:
            case "[" | "{":
                level += len(part[0])
            case "]" | "}":
                level -= len(part[0])
        if not 0 <= level <= MOST_LEVELS:
            # A text that closes more than it opens is no JSON, as its parser says.
            return level > 0
    return False
