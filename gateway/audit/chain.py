"""Checks of the chain: whether entries were changed, removed, swapped, inserted, or cut off at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gateway.audit.entry import FIELDS, START, digest_of_line
from gateway.signatures.canonical import canonical, plain_json

MOST_BYTES: Final = 64 << 10
"""Longest line that is read, bytes."""


class ChainBroken(Exception):  # noqa: N818 - the name says what is wrong
    """The log is not as it was written.

    Attributes:
        line: number of the first wrong line, from 1.
        reason: what is wrong.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """Last entry of a chain.

    Attributes:
        sequence: number of the entry; 0: the chain has no entry.
        digest: SHA-256 of the entry's line; START: the chain has no entry.
    """

    sequence: int = 0
    digest: str = START


def document_of(line: bytes, number: int) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises:
        ChainBroken: the line is no object in canonical JSON, or is too long.
    """
    if len(line) > MOST_BYTES:
        raise ChainBroken(number, f"the line has more than {MOST_BYTES} bytes")
    try:
        found = plain_json(line)
        same = canonical(found) == line
    except (ValueError, RecursionError):
        raise ChainBroken(number, "the line is no JSON: it was changed or cut") from None
    if not isinstance(found, dict):
        raise ChainBroken(number, "the line is no JSON object: it was changed")
    if not same:
        raise ChainBroken(number, "the line is not in the canonical form that the log is written in: it was changed")
    return found


def follow(head: Head, line: bytes, number: int) -> Head:
    """Return the head of a chain with one more line.

    Args:
        head: head of the chain before the line.
        line: the line, without its line break.
        number: number of the line for errors.

    Raises:
        ChainBroken: the line is no entry, or not the next one.
    """
    entry = document_of(line, number)
    if entry.keys() != FIELDS:
        raise ChainBroken(number, "the line is no entry of an audit log")
    sequence, due = entry["sequence"], head.sequence + 1
    if type(sequence) is not int or sequence != due:
        shown = str(sequence)[:20]
        raise ChainBroken(number, f"entry {due} is due here, and this is entry {shown}: an entry was removed, inserted or moved")
    if entry["previous"] != head.digest:
        before = f"entry {head.sequence}" if head.sequence else "the beginning of the log"
        raise ChainBroken(number, f"the entry does not hold the digest of {before}: one of the two was changed")
    return Head(sequence, digest_of_line(line))
