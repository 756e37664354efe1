"""Files for a gateway on another machine: footage and speech up, videos down.

with connect("gateway.example:50050") as connection:
    footage = files.upload(connection, "shot.mp4").name
    speech = files.upload(connection, "speech.wav").name
    gateway.dub(connection, footage=footage, speech=speech, output="uploads/dubbed.mp4").wait()
    files.download(connection, "uploads/dubbed.mp4", "dubbed.mp4")
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dubstage.client import rpcs
from dubstage.client.calls import Requests, download_call, paged_call, unary_call, upload_call
from dubstage.client.connection import Connection
from dubstage.client.errors import DubstageCallError
from dubstage.client.names import resource_name
from dubstage.gateway.v1 import media_pb2 as pb

__all__ = [
    "delete_upload",
    "download",
    "download_pieces",
    "finish_upload",
    "get_upload",
    "list_uploads",
    "sign_download",
    "sign_upload",
    "upload",
    "upload_pieces",
]

Progress = Callable[[int, int], None]
"""Called with the finished bytes and all bytes of a file."""
OUTAGE_S: Final = 120.0
"""Seconds without progress after which `upload` and `download` give up."""
_RETRY_S: Final = 1.0
_PIECE_BYTES: Final = 256 << 10
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")


@upload_call(rpcs.gateway.UPLOAD_FILE, lambda reply: reply)
def upload_pieces(*, name: str, size_bytes: int, sha256: str = "", offset: int = 0) -> Requests[bytes, pb.UploadFileRequest]:
    """Return the Upload after pieces of a file were sent. It is complete if all bytes are there.

    Args:
        name: ASCII letters, digits, dots, hyphens and underscores, at most 128.
        size_bytes: size of the whole file.
        sha256: SHA-256 of the whole file, hexadecimal; empty: the gateway does not check it.
        offset: position of the first piece: 0, or the `received_bytes` of an earlier Upload.
    """
    first = pb.UploadFileRequest(name=resource_name("uploads", name), size_bytes=size_bytes, sha256=sha256, offset=offset)
    return Requests(first, lambda data: pb.UploadFileRequest(data=data))


@unary_call(rpcs.gateway.GET_UPLOAD, lambda reply: reply)
def get_upload(name: str) -> pb.GetUploadRequest:
    """Return an Upload: how many bytes are there, and whether the file is complete."""
    return pb.GetUploadRequest(name=resource_name("uploads", name))


@paged_call(rpcs.gateway.LIST_UPLOADS, lambda page: page.uploads)
def list_uploads(*, page_size: int = 0) -> pb.ListUploadsRequest:
    """Yield the Uploads by name, without their SHA-256.

    Args:
        page_size: uploads per page, at most 1000; 0: 100.
    """
    return pb.ListUploadsRequest(page_size=page_size)


@unary_call(rpcs.gateway.DELETE_UPLOAD, lambda reply: None)
def delete_upload(name: str) -> pb.DeleteUploadRequest:
    """Erase an upload that no work uses."""
    return pb.DeleteUploadRequest(name=resource_name("uploads", name))


@unary_call(rpcs.gateway.SIGN_UPLOAD, lambda reply: reply)
def sign_upload(name: str, *, size_bytes: int, sha256: str) -> pb.SignUploadRequest:
    """Return a SignedUrl of the gateway's bucket, to which the caller sends the file by HTTP with the SignedUrl's `headers`.

    Args:
        name: ASCII letters, digits, dots, hyphens and underscores, at most 128.
        size_bytes: size of the file, at most 5 GiB.
        sha256: SHA-256 of the file, hexadecimal.
    """
    return pb.SignUploadRequest(name=resource_name("uploads", name), size_bytes=size_bytes, sha256=sha256)


@unary_call(rpcs.gateway.FINISH_UPLOAD, lambda reply: reply)
def finish_upload(name: str, *, sha256: str) -> pb.FinishUploadRequest:
    """Return the Upload of a file that was sent to a signed URL, after the gateway has compared the SHA-256.

    Args:
        name: as for `sign_upload`.
        sha256: SHA-256 of the file, hexadecimal.
    """
    return pb.FinishUploadRequest(name=resource_name("uploads", name), sha256=sha256)


@unary_call(rpcs.gateway.SIGN_DOWNLOAD, lambda reply: reply)
def sign_download(uri: str) -> pb.SignDownloadRequest:
    """Return a SignedUrl, from which the caller gets a file of the gateway's bucket by HTTP.

    Args:
        uri: `uri` of an Upload, or the output of a dub that succeeded.
    """
    return pb.SignDownloadRequest(uri=uri)


@download_call(rpcs.gateway.DOWNLOAD_FILE, lambda reply: (reply,))
def download_pieces(path: str, *, offset: int = 0, max_bytes: int = 0) -> pb.DownloadFileRequest:
    """Yield a file in pieces (DownloadFileResponse). The first has `size_bytes` and `sha256` of the whole file, the others `data`.

    Args:
        path: `name` of an Upload, or the output of a dub that succeeded.
        offset: position of the first byte.
        max_bytes: most bytes; 0: all.
    """
    return pb.DownloadFileRequest(path=path, offset=offset, max_bytes=max_bytes)


def upload(connection: Connection, file: str | os.PathLike[str], *, name: str = "", progress: Progress | None = None) -> pb.Upload:
    """Upload a file and return its Upload, whose `name` other calls take.

    A broken upload is continued, also by a later call. A file that is there already is not sent again.

    Args:
        connection: connection to a gateway.
        file: the file.
        name: name at the gateway; empty: the name of the file, with `_` in place of characters that no upload may have.
        progress: called with the sent bytes and all bytes, from a thread of gRPC.

    Raises:
        DubstageCallError: the gateway refuses the file, or does not answer for OUTAGE_S.
        OSError: the file cannot be read.
    """
    source = Path(file)
    chosen = name or _NOT_IN_NAMES.sub("_", source.name)[-128:].lstrip(".") or "file"
    size_bytes, sha256 = source.stat().st_size, _sha256(source)
    report = progress or _no_progress
    outage = _Outage()
    while True:
        offset = 0
        try:
            there = _there(connection, chosen)
            if there is not None and there.complete and there.sha256 == sha256:
                report(size_bytes, size_bytes)
                return there
            if there is not None and not there.complete and there.received_bytes <= size_bytes:
                offset = there.received_bytes
            outage.look(offset)
            pieces = _pieces(source, offset, size_bytes, report)
            uploaded = upload_pieces(connection, pieces, name=chosen, size_bytes=size_bytes, sha256=sha256, offset=offset)
            if uploaded.complete:
                return uploaded
            raise DubstageCallError(
                f"{source} became shorter during the upload", code="INVALID_ARGUMENT", reason="INVALID_REQUEST", field="size_bytes"
            )
        except DubstageCallError as error:
            # The gateway had the beginning of another file of this name, and has removed it.
            if not (offset and error.field == "sha256"):
                outage.check(error)


def download(connection: Connection, path: str, target: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
    """Download a file under a hidden name, compare its SHA-256, give the file its name, and return the path.

    A broken download is continued, also by a later call. An existing file is replaced.

    Args:
        connection: connection to a gateway.
        path: `name` of an Upload, or the output of a dub that succeeded.
        target: file to write.
        progress: called with the received bytes and all bytes.

    Raises:
        DubstageCallError: the gateway refuses the call, or does not answer for OUTAGE_S.
        OSError: the file cannot be written.
    """
    final = Path(target)
    partial = final.with_name(f".{final.name}.download")
    report = progress or _no_progress
    outage = _Outage()
    while True:
        offset = partial.stat().st_size if partial.is_file() else 0
        outage.look(offset)
        try:
            sha256 = _fetch(connection, path, partial, offset, report)
        except DubstageCallError as error:
            if not (offset and error.field == "offset"):
                outage.check(error)
                continue
        else:
            if _sha256(partial) == sha256:
                partial.replace(final)
                return final
        # The beginning belongs to another file.
        partial.unlink(missing_ok=True)
        if not offset:
            raise DubstageCallError(f"{path} arrived with another SHA-256", code="DATA_LOSS", reason="ARTEFACT_CORRUPT")


def _fetch(connection: Connection, path: str, partial: Path, offset: int, report: Progress) -> str:
    """Append the rest of a file, and return the SHA-256 that the whole file should have."""
    pieces = download_pieces(connection, path, offset=offset)
    # A refused call makes no file.
    facts = next(pieces)
    with partial.open("ab") as stream:
        for piece in pieces:
            stream.write(piece.data)
            offset += len(piece.data)
            report(offset, facts.size_bytes)
    return facts.sha256


def _there(connection: Connection, name: str) -> pb.Upload | None:
    try:
        return get_upload(connection, name)
    except DubstageCallError as error:
        if error.code == "NOT_FOUND":
            return None
        raise


def _pieces(source: Path, offset: int, size_bytes: int, report: Progress) -> Iterator[bytes]:
    with source.open("rb") as stream:
        stream.seek(offset)
        while data := stream.read(_PIECE_BYTES):
            yield data
            offset += len(data)
            report(min(offset, size_bytes), size_bytes)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _no_progress(done: int, total: int) -> None:
    pass


class _Outage:
    """Time without progress."""

    def __init__(self) -> None:
        self._offset = -1
        self._since = time.monotonic()

    def look(self, offset: int) -> None:
        """Note how many bytes have arrived."""
        if offset != self._offset:
            self._offset, self._since = offset, time.monotonic()

    def check(self, error: DubstageCallError) -> None:
        """Wait for the next attempt.

        Raises:
            DubstageCallError: the error is no broken connection, or the time without progress is too long.
        """
        # The gateway may not have noticed yet that the connection before has broken.
        broken = error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") or error.reason == "FILE_IN_USE"
        if not broken or time.monotonic() - self._since > OUTAGE_S:
            raise error
        time.sleep(_RETRY_S)
