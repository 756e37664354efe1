"""Exports of the audit log: one entry per line, and a last line with the signed head, so that a cut end is found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.audit.entries import MOST_BYTES, ChainBrokenError, ChainHead, document_of, follow
from gateway.audit.log import AuditLog, follow_row
from gateway.consent.keys import key_id
from gateway.safe_paths import open_regular_file
from gateway.signatures import InstallationKey, canonical, is_signed
from services.common.errors import InvalidRequestError, StorageFullError
from services.common.files import FULL_DISK, write_whole
from services.common.texts import Option, Text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT: Final = "dubstage audit log 1"
_CONTEXT: Final = b"dubstage audit head v1\n"
"""First bytes of what is signed, so that no signature of another kind of text is a signature of a head."""
_HEAD_KEYS: Final = frozenset({"format", "sequence", "digest", "exported_at", "key"})


@dataclass(frozen=True, slots=True)
class Exported:
    """A checked export.

    Attributes:
        head: last entry.
        exported_at: time of the export, RFC 3339, UTC.
        key: id of the key that signed the head.
    """

    head: ChainHead
    exported_at: str
    key: str


def write_export(log: AuditLog, key: InstallationKey, file: Path, *, at: str, overwrite: bool = False) -> Exported:
    """Write the whole log to a file, under a temporary name that is then renamed.

    Args:
        log: the log. It is checked while it is read.
        key: key that signs the head.
        file: file to write, mode 0600.
        at: time of the export, RFC 3339, UTC.
        overwrite: whether an existing file is replaced.

    Raises:
        ChainBrokenError: the log in the database was changed. No file is written.
        InvalidRequestError: the file exists, or its folder is missing or may not be written.
        StorageFullError: no space is left.
    """
    if os.path.lexists(file) and not (overwrite and file.is_file()):
        raise InvalidRequestError(
            Text(
                "{file} exists: give another name, or replace the file with {overwrite}", file=file, overwrite=Option("overwrite")
            ),
            field="file",
        )
    head = ChainHead()

    def lines() -> Iterator[bytes]:
        nonlocal head
        for number, row in enumerate(log.lines(), 1):
            head = follow_row(head, row, number)
            yield row.line.encode("ascii") + b"\n"
        yield signed_head(head, key, at) + b"\n"

    try:
        write_whole(file, lines(), mode=0o600)
    except OSError as problem:
        if problem.errno in FULL_DISK:
            raise StorageFullError(f"no space left for {file}: free some, or give another disk", subject=str(file)) from problem
        raise InvalidRequestError(f"{file} cannot be written: {problem.strerror or problem}", field="file") from problem
    return Exported(head, at, key.id)


def signed_head(head: ChainHead, key: InstallationKey, at: str) -> bytes:
    """Return the last line of an export."""
    body = {"format": FORMAT, "sequence": head.sequence, "digest": head.digest, "exported_at": at, "key": key.id}
    return canonical({"head": body, "signature": key.sign(_CONTEXT + canonical(body))})


def verify_export(file: Path, key_of: Callable[[str], Ed25519PublicKey]) -> Exported:
    """Check an export: each entry, the chain, the signed head, and that nothing is missing at the end.

    Args:
        file: the export.
        key_of: returns the trusted public key for the id that the head names.

    Raises:
        ChainBrokenError: the file is not as it was written.
        InvalidRequestError: the file cannot be read.
    """
    head, number = ChainHead(), 0
    ending: dict[str, Any] | None = None
    for number, line in enumerate(_lines(file), 1):
        if ending is not None:
            raise ChainBrokenError(number, "there is a line behind the signed head")
        if line.startswith(b'{"head":'):
            ending = document_of(line, number)
        else:
            head = follow(head, line, number)
    if ending is None:
        raise ChainBrokenError(number + 1, "the line with the signed head is missing: the end of the file was cut")
    return _checked_head(ending, head, number, key_of)


def _checked_head(ending: dict[str, Any], head: ChainHead, number: int, key_of: Callable[[str], Ed25519PublicKey]) -> Exported:
    body = ending["head"]
    if ending.keys() != {"head", "signature"} or not isinstance(body, dict) or body.keys() != _HEAD_KEYS:
        raise ChainBrokenError(number, "the line is no signed head: it was changed")
    asked = body["key"] if isinstance(body["key"], str) else ""
    key = key_of(asked)
    if asked != key_id(key):
        raise ChainBrokenError(number, f"the head names the key {asked[:64]}, and the given key is {key_id(key)}")
    if body["format"] != FORMAT or not is_signed(_CONTEXT + canonical(body), ending["signature"], key):
        raise ChainBrokenError(number, "the signature does not fit the head: the head was changed or forged")
    if type(body["sequence"]) is not int or body["sequence"] > head.sequence:
        raise ChainBrokenError(number, f"entries {head.sequence + 1} to {body['sequence']} are missing: the end was cut")
    if body["sequence"] != head.sequence:
        raise ChainBrokenError(body["sequence"] + 1, "the signed head does not know the entry: it was appended to the file")
    if body["digest"] != head.digest:
        raise ChainBrokenError(max(1, head.sequence), "the last entry is not the one that the head was signed for: it was changed")
    return Exported(head, str(body["exported_at"]), asked)


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with open_regular_file(file) as stream:
            while line := stream.readline(MOST_BYTES + 2):
                yield line.removesuffix(b"\n")
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror or problem}", field="file") from problem
