"""Text that somebody else wrote (names of files, messages of libraries, arguments), as a terminal may show it."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Zero-width joiners: Persian, Indic scripts and emoji are written with them, and they do no harm."""


def printable(text: str) -> str:
    r"""Return `text` in one line, with a visible escape for each character that a terminal would act on or cannot show.

    Control characters, line breaks and marks that change the direction of writing become `\n`, `\x1b` or `\u202e`; a byte of a file
    name that is not UTF-8 becomes `\xff`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
