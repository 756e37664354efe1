"""The one module that calls c2pa: signs manifests and reads them. Never asks the network, except the time stamp authority."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from gateway.provenance.credential import Credential

if TYPE_CHECKING:
    import c2pa

UNKNOWN: Final = "application/octet-stream"
"""Media type of files that c2pa does not parse. Their manifests lie in a sidecar, and cover all bytes of the file."""
_OF_TIME_STAMP: Final = "internal error ("
"""What c2pa says before any fault of a time stamp: the authority does not answer, or answers something else than a time stamp of
these bytes."""
_SYSTEM_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_OFF: Final = {"enabled": False}
_CORE: Final = {"backing_store_memory_threshold_in_mb": 8, "merkle_tree_chunk_size_in_kb": 1024}
"""Bounds of memory: c2pa's copies of a film lie in temporary files, and pictures and sound are hashed in pieces."""
_BUILDER: Final = {
    # A thumbnail would show the person in a place that nobody looks at when the film is withdrawn.
    "thumbnail": _OFF,
    "actions": {"auto_created_action": _OFF, "auto_opened_action": _OFF, "auto_placed_action": _OFF},
}
_VERIFY: Final = {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False}
"""Files come from strangers: no address that a file names is fetched."""


class LibraryError(Exception):
    """c2pa cannot sign or read something. The text is c2pa's own reason.

    Attributes:
        of_time_stamp: whether the time stamp authority is at fault.
    """

    def __init__(self, reason: str, *, of_time_stamp: bool = False) -> None:
        super().__init__(reason)
        self.of_time_stamp = of_time_stamp


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A file whose own manifest is kept in the manifest of a film.

    Attributes:
        description: as `gateway.provenance.claim.ingredient` returns it, with the media type under `format`.
        file: content of the file, open for reading.
        sidecar: manifest that lies beside the file; empty: the manifest is in the file, or there is none.
    """

    description: dict[str, Any]
    file: IO[bytes]
    sidecar: bytes = b""


def sign(
    definition: dict[str, Any],
    ingredients: Iterable[Ingredient],
    credential: Credential,
    source: IO[bytes],
    target: IO[bytes] | None,
    *,
    media_type: str,
    time_stamp_url: str = "",
) -> bytes:
    """Return the signed manifest of a file.

    Args:
        definition: what the manifest says.
        ingredients: files that the file was made of.
        credential: what signs.
        source: content of the file.
        target: gets the file with the manifest inside; None: the manifest lies beside the file, which stays as it is.
        media_type: type of the file, of one that c2pa can write a manifest into, or `UNKNOWN`.
        time_stamp_url: time stamp authority; empty: the manifest has no time.

    Raises:
        LibraryError: c2pa refuses the definition, the file or the credential, or the time stamp authority gives no time stamp of
            this manifest within 30 s (a limit of c2pa).
        OSError: `target` or a temporary file cannot be written.
    """
    import c2pa

    kept = _Target(target) if target is not None else None
    try:
        with (
            c2pa.Context.from_dict({"core": _CORE, "builder": _BUILDER, "verify": {**_VERIFY, "verify_trust": False}}) as context,
            c2pa.Builder(definition, context=context) as builder,
        ):
            for ingredient in ingredients:
                _add(builder, ingredient)
            if target is None:
                builder.set_no_embed()
            info = c2pa.C2paSignerInfo(
                credential.algorithm.encode(), credential.chain, credential.key, time_stamp_url.encode() or None
            )
            with c2pa.Signer.from_info(info) as signer:
                return bytes(builder.sign(signer, media_type, source, kept or _Discard()))
    except c2pa.C2paError as problem:
        if kept is not None and kept.problem is not None:
            raise kept.problem from problem
        if found := _SYSTEM_ERROR.search(str(problem)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from problem
        of_time_stamp = isinstance(problem, c2pa.C2paError.Signature) and _OF_TIME_STAMP in str(problem)
        raise LibraryError(_reason(problem), of_time_stamp=bool(time_stamp_url) and of_time_stamp) from problem


def _add(builder: c2pa.Builder, ingredient: Ingredient) -> None:
    """Add an ingredient with its manifest. A file that c2pa cannot parse is added without one."""
    import c2pa

    description, file = ingredient.description, ingredient.file
    if ingredient.sidecar:
        try:
            found = read(file, UNKNOWN, sidecar=ingredient.sidecar)
        except LibraryError:
            found = None
        if found is not None:
            name = f"{description['label']}.c2pa"
            builder.add_resource(name, io.BytesIO(ingredient.sidecar))
            kept = {
                "manifest_data": {"format": "application/c2pa", "identifier": name},
                "active_manifest": found["active_manifest"],
                "validation_results": found["validation_results"],
            }
            file.seek(0)
            builder.add_ingredient({**description, **kept}, UNKNOWN, file)
            return
    file.seek(0)
    try:
        builder.add_ingredient(description, description["format"], file)
    except c2pa.C2paError:
        file.seek(0)
        builder.add_ingredient({**description, "format": UNKNOWN}, UNKNOWN, file)


def read(file: IO[bytes], media_type: str, *, sidecar: bytes = b"", anchors: bytes = b"") -> dict[str, Any] | None:
    """Return what c2pa says of a file's manifests, as c2pa's Reader writes it; None: the file has none.

    Args:
        file: content of the file.
        media_type: type of the file, or `UNKNOWN`.
        sidecar: manifest that lies beside the file; empty: the manifest is in the file.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.

    Raises:
        LibraryError: the manifest cannot be read.
    """
    import c2pa

    settings: dict[str, Any] = {"verify": {**_VERIFY, "verify_trust": True}}
    if anchors:
        settings["trust"] = {"trust_anchors": anchors.decode("ascii", "replace")}
    file.seek(0)
    try:
        with c2pa.Context.from_dict(settings) as context, c2pa.Reader(media_type, file, sidecar or None, context=context) as reader:
            told: dict[str, Any] = json.loads(reader.json())
            return told
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return None
    except c2pa.C2paError as problem:
        raise LibraryError(_reason(problem)) from problem


def _reason(problem: Exception) -> str:
    return str(problem).splitlines()[0][:300] if str(problem) else type(problem).__name__


class _Target:
    """A file that keeps the error of a failed write. c2pa says only that some write failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.problem: OSError | None = None
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as problem:
            self.problem = problem
            raise

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as problem:
            self.problem = problem
            raise


class _Discard(io.RawIOBase):
    """Takes and forgets what is written. c2pa copies every file that it signs, also one that stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._place = self._end = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._place += len(data)
        self._end = max(self._end, self._place)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._end}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        return b""
