"""Directory of installations: who wrote a public watermark, and whom to ask about it.

A watermark has 12 bits for the installation. An installation publishes an entry that gives its name and its contact to these bits.
The entry is signed like a video, with a C2PA manifest, so that authorities vouch for its signer. A directory is a file with one
entry per line: the files of several installations, one after the other.
"""

from __future__ import annotations

import json
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.provenance.binding import sidecar_binding
from gateway.provenance.claim import bytes_definition
from gateway.provenance.library import LibraryError
from gateway.provenance.seal import SIGNING_ERRORS, Sealer, sign_manifest, signing_error
from gateway.provenance.verdict import ManifestState, read_credentials, state_of
from gateway.safe_paths import bounded_bytes
from services.common.errors import InvalidRequestError

_MOST_BYTES: Final = 64 << 20
"""Largest directory that is read, bytes. An entry has about 10 kB."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Entry(_Model):
    """Facts that an installation publishes about itself.

    Attributes:
        version: version of this form.
        installation: the installation's part of its watermarks, 3 hexadecimal digits. Other installations may have the same.
        name: name of the installation, for people.
        contact: page or mail address that answers questions about marks.
    """

    version: Literal[1] = 1
    installation: Annotated[str, Field(pattern=r"^[0-9a-f]{3}$")]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    contact: Annotated[str, Field(max_length=400, pattern=r"^(https://|mailto:)[!-~]+$")]

    @property
    def content(self) -> bytes:
        """The bytes that are signed."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":")).encode()


class SignedEntry(_Model):
    """An entry with its signature: one line of a directory.

    Attributes:
        manifest: C2PA manifest of the entry's content, base64. Nothing says yet that it holds.
    """

    entry: Entry
    manifest: str


@dataclass(frozen=True, slots=True)
class CheckedEntry:
    """An entry of a directory, and whether its signature holds.

    Attributes:
        state: state of the entry's manifest.
        signer: common name of the signer's certificate; empty if the manifest cannot be read.
    """

    entry: Entry
    state: ManifestState
    signer: str


def signed_entry(entry: Entry, sealer: Sealer, file: Path) -> bytes:
    """Return an entry as a line of a directory. Blocks.

    Args:
        sealer: signs the videos of the installation.
        file: file that the line is written to.

    Raises:
        BackendUnavailableError: the time stamp authority or the command that signs does not answer.
        InvalidRequestError: the entry cannot be signed.
    """
    try:
        signed = sign_manifest(
            bytes_definition(sidecar_binding(BytesIO(entry.content))),
            (),
            sealer.credential,
            folder=file.parent,
            time_stamp_url=sealer.time_stamp_url,
            time_stamp_limit_s=sealer.time_stamp_limit_s,
        )
    except SIGNING_ERRORS as problem:
        raise signing_error(problem, file, sealer.time_stamp_url) from problem
    return SignedEntry(entry=entry, manifest=b64encode(signed.manifest).decode()).model_dump_json().encode() + b"\n"


def read_directories(files: Sequence[Path]) -> list[SignedEntry]:
    """Return the entries of directories, whose signatures are not checked yet.

    Raises:
        InvalidRequestError: a file cannot be read, or is no directory; the message names file and line.
    """
    return [line for file in files for line in _lines(file)]


def _lines(file: Path) -> Iterator[SignedEntry]:
    try:
        content = bounded_bytes(file, _MOST_BYTES)
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror or problem}", field="directory") from problem
    if not content.strip():
        raise InvalidRequestError(f"{file} is empty: give a file of `dubstage watermark publish`", field="directory")
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                yield SignedEntry.model_validate_json(line)
            except ValidationError as problem:
                first = problem.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the line"
                raise InvalidRequestError(
                    f"{file}, line {number}: {where}: {first['msg']}; give a file of `dubstage watermark publish`",
                    field="directory",
                ) from None


def entries_of(lines: Sequence[SignedEntry], installation: str, anchors: bytes) -> list[CheckedEntry]:
    """Return the entries of one installation, with the state of their signatures. Blocks.

    Args:
        lines: from `read_directories`.
        installation: 3 hexadecimal digits.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.
    """
    return [_checked(line, anchors) for line in lines if line.entry.installation == installation]


def _checked(line: SignedEntry, anchors: bytes) -> CheckedEntry:
    with tempfile.TemporaryFile() as file:
        file.write(line.entry.content)
        file.flush()
        try:
            manifest = b64decode(line.manifest, validate=True)
            report = read_credentials(file.fileno(), None, sidecar=manifest, anchors=anchors).report
        except (LibraryError, ValueError):
            report = None
    if report is None:
        return CheckedEntry(line.entry, ManifestState.INVALID, "")
    active = report.get("manifests", {}).get(report.get("active_manifest", ""), {})
    return CheckedEntry(line.entry, state_of(report), str(active.get("signature_info", {}).get("common_name", "")))
