"""Text from outside (names of files, messages of libraries, arguments), made safe for a terminal."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Zero-width joiners. Persian, Indic scripts and emoji need these characters, and a terminal shows them safely."""


def printable(text: str) -> str:
    r"""Return `text` in one line, with a visible escape for each character that a terminal would act on or cannot show.

    Control characters, line breaks and marks that change the direction of writing become escapes such as `\x1b`, `\n` and `\u202e`.
    A byte of a file name that is not UTF-8 becomes an escape such as `\xff`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # Python's character for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
