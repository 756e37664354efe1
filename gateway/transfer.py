"""Media of dubs and batches by path or by URL: inputs come as files of this machine, videos go whole to where they belong."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

import structlog

from gateway.async_utilities import in_stoppable_thread
from gateway.consent.files import read_consent
from gateway.consent.record import Consent
from gateway.dub.request.dub_request import sha256_of
from gateway.dub.request.spec_text import ROWS
from gateway.media.locations import copy_name, is_url, local_path, protocol_of, url_problem
from gateway.media.output import existing_file
from gateway.media.sequence_names import is_sequence
from gateway.media.sequences import sequence_files
from gateway.provenance.binding import SIDECAR, embedded_type, sidecar_of
from gateway.safe_paths import make_folder
from services.common.errors import (
    ArtefactNotFoundError,
    BackendUnavailableError,
    DubstageError,
    InvalidRequestError,
    MediaUnsupportedError,
    StorageFullError,
    StorageRefusedError,
    WorkCancelledError,
)
from services.common.files import FULL_DISK, PARTIAL
from services.common.store.backends import StoreBackend, open_backend

_log = structlog.stdlib.get_logger("dubstage.batch")

_READABLE: Final = ("s3", "https", "http")
_WRITABLE: Final = ("s3",)
_DIGEST: Final = "dubstage-sha256"
"""Name of the S3 metadata that holds a video's digest. An object with it was written by dubstage."""
_GONE: Final = frozenset({404, 410})
"""Status codes of HTTP for a file that does not exist."""
_LARGEST_RECORD: Final = 1 << 20
"""Largest consent record that is copied from a URL, bytes."""
_PIECE_BYTES: Final = 8 << 20
PATIENCE_S: Final = 300.0
"""Seconds that a copy may take besides those that its bytes may take."""
SLOWEST_BYTES_PER_S: Final = 200_000
"""Slowest rate of a copy, bytes per second."""

Confirm = Callable[[], None]
"""Raises an error if a copy is not needed any more."""


def input_problem(location: str) -> str:
    """Return what keeps a file from being read, in words; empty: nothing.

    Args:
        location: absolute path or URL.

    Raises:
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    try:
        if is_url(location):
            return f"{location} is empty" if _size(_opened(location, _READABLE, "footage"), location) == 0 else ""
        facts = os.stat(location)
    except (InvalidRequestError, ArtefactNotFoundError) as error:
        return error.said(ROWS)
    except FileNotFoundError:
        return f"no such file {location}"
    except (OSError, ValueError) as problem:
        return f"{location!r} cannot be read: {_reason(problem)}"
    if not stat.S_ISREG(facts.st_mode) or not facts.st_size:
        return f"{location} is empty" if stat.S_ISREG(facts.st_mode) else f"{location} is no regular file"
    return "" if os.access(location, os.R_OK) else f"{location} may not be read by this user"


def footage_problem(location: str) -> str:
    """Return what keeps footage from being read, in words; empty: nothing. The frames of an image sequence are not opened.

    Args:
        location: absolute path or URL, or the pattern of an image sequence.

    Raises:
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    if not is_sequence(Path(location)):
        return input_problem(location)
    if is_url(location):
        return ""  # `sequence_of` refuses the URL
    try:
        _, files = sequence_files(Path(location))
    except (InvalidRequestError, MediaUnsupportedError) as problem:
        return problem.said(ROWS)
    return next((said for file in files if (said := input_problem(str(file)))), "")


def output_problem(location: str) -> str:
    """Return what keeps a video from being written, in words; empty: nothing. The folder of the video is made later.

    Args:
        location: absolute path or URL.
    """
    try:
        if is_url(location):
            _opened(location, _WRITABLE, "output")
            return ""
        there = existing_file(Path(location))
    except InvalidRequestError as error:
        return error.said(ROWS)
    if there is None:
        return _folder_problem(Path(location).parent)
    return "" if stat.S_ISREG(there.st_mode) else f"{location} is no regular file: give another name"


def _folder_problem(folder: Path) -> str:
    """Return what keeps a folder from being made or written, in words; empty: nothing."""
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as problem:
        return f"{folder} cannot be written: {_reason(problem)}"
    if not folder.is_dir():
        return f"{folder} is no folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"the folder {folder} may not be written by this user"


def fetched(location: str, folder: Path, *, field: str, max_bytes: int, confirm: Confirm = lambda: None) -> Path:
    """Return a file of this machine with the content of a path or URL. Blocks.

    Args:
        location: absolute path, which is returned as it is, or a URL, whose file is copied.
        folder: folder for the copy.
        field: field of the shot, such as `footage`, for messages and as the name of the copy.
        max_bytes: size of the largest file that is copied.
        confirm: called after each piece; raises an error if the copy is not needed any more.

    Raises:
        InvalidRequestError: the URL cannot be opened, or its file is larger than `max_bytes`.
        ArtefactNotFoundError: no file lies at the URL.
        StorageFullError: no space is left in `folder`. No part of the copy stays.
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, does not answer, or sends less than 0.2 MB a
            second.
    """
    path = local_path(location)
    if path is not None:
        return Path(path)
    backend = _opened(location, _READABLE, field)
    size = _size(backend, location)
    if size is not None and size > max_bytes:
        raise _too_large(location, field, max_bytes)
    copy = folder / copy_name(field, location)
    partial = folder / f"{PARTIAL}{copy.name}"
    # Not all web servers send parts of a file, and few say so: their files come in one answer.
    pieces = 0 if location.startswith("http") else _PIECE_BYTES
    try:
        with backend.domain_errors(), backend.files.open(backend.root, "rb", block_size=pieces) as source:
            _copy(source, partial, location, field, max_bytes, confirm)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)
    return copy


def fetched_with_manifest(location: str, folder: Path, *, field: str, max_bytes: int, confirm: Confirm = lambda: None) -> Path:
    """Return what `fetched` returns. The manifest beside a file that cannot hold it lies beside the copy. Blocks.

    Args:
        location, folder, field, max_bytes, confirm: as for `fetched`.

    Raises:
        DubstageError: as `fetched`.
    """
    copy = fetched(location, folder, field=field, max_bytes=max_bytes, confirm=confirm)
    # A URL with a query, such as a signature, names one file alone.
    if local_path(location) is None and "?" not in location and embedded_type(copy) is None:
        # Stores also refuse files that they do not have.
        with suppress(ArtefactNotFoundError, StorageRefusedError):
            beside = fetched(f"{location}{SIDECAR}", folder, field=field, max_bytes=max_bytes, confirm=confirm)
            beside.replace(sidecar_of(copy))
    return copy


async def fetched_in_thread(location: str, folder: Path, *, field: str, max_bytes: int, confirm: Confirm = lambda: None) -> Path:
    """Return what `fetched_with_manifest` returns. If this task is cancelled, the copy ends after the piece that is being read.

    Args:
        location, folder, field, max_bytes, confirm: as for `fetched`.

    Raises:
        DubstageError: as `fetched`.
    """
    cancelled = threading.Event()

    def confirmed() -> None:
        if cancelled.is_set():
            raise WorkCancelledError("the copy was cancelled")
        confirm()

    return await in_stoppable_thread(
        lambda: fetched_with_manifest(location, folder, field=field, max_bytes=max_bytes, confirm=confirmed), cancelled.set
    )


def consent_at(location: str) -> Consent:
    """Return the consent record at a location. Blocks.

    Args:
        location: absolute path or URL.

    Raises:
        InvalidRequestError: there is no such file, or the file is no consent record. The message names the location.
        ArtefactNotFoundError: no file lies at the URL.
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    path = local_path(location)
    if path is not None:
        return read_consent(Path(path))
    with tempfile.TemporaryDirectory() as folder:
        return read_consent(fetched(location, Path(folder), field="consent", max_bytes=_LARGEST_RECORD), shown_name=location)


def output_file(location: str, folder: Path) -> Path:
    """Return the file of this machine to write a video to. Blocks.

    Args:
        location: absolute path, which is returned as it is, and whose folder is made; or a URL, to which `upload` uploads the file.
        folder: folder of a file that is uploaded.

    Raises:
        InvalidRequestError: the location cannot be written, or an object lies at the URL that dubstage did not write.
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    path = local_path(location)
    if path is None:
        check_replaceable(location)
        return folder / copy_name("output", location)
    output = Path(path)
    try:
        make_folder(output.parent)
    except (OSError, ValueError) as problem:
        raise InvalidRequestError(f"the folder {output.parent} cannot be made: {_reason(problem)}", field="output") from problem
    return output


def check_replaceable(location: str) -> None:
    """Check that a video and its manifest may be uploaded to a URL. Blocks.

    Raises:
        InvalidRequestError: the URL cannot be written, or an object lies there that dubstage did not write.
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    for target in _targets(Path(PurePosixPath(location).name), location).values():
        if _digest_at(_opened(target, _WRITABLE, "output")) == "":
            raise InvalidRequestError(
                f"{target} exists, and dubstage did not write it: give another output, or remove the object", field="output"
            )


def upload(video: Path, url: str, on_object: Callable[[str, str], None] = lambda url, digest: None) -> None:
    """Upload a video whole to a URL, after the manifest that lies beside the video. Blocks.

    Args:
        video: the video.
        url: the URL.
        on_object: called with the URL and the SHA-256 of each object before the object is written.

    Raises:
        InvalidRequestError: the URL cannot be written.
        StorageFullError, StorageRefusedError, BackendUnavailableError: as the store says. A video at the URL is as it was before.
    """
    for file, target in _targets(video, url).items():
        if file == video or file.exists():
            backend, digest = _opened(target, _WRITABLE, "output"), sha256_of(file)
            on_object(target, digest)
            with backend.domain_errors():
                backend.files.put_file(str(file), backend.root, Metadata={_DIGEST: digest})


def remove_uploaded(objects: Mapping[str, str]) -> None:
    """Remove what `upload` has written, unless another upload has replaced it. Blocks. Errors go to the log.

    Args:
        objects: SHA-256 of the objects, hexadecimal, by URL.
    """
    for url, digest in objects.items():
        try:
            backend = _opened(url, _WRITABLE, "output")
            if _digest_at(backend) == digest:
                with backend.domain_errors():
                    backend.files.rm_file(backend.root)
        except (DubstageError, OSError) as problem:
            _log.warning("video_not_removed", video=url, problem=str(problem))


def _targets(video: Path, location: str) -> dict[Path, str]:
    """Return the files of a video, and the URL of each."""
    beside = {sidecar_of(video): f"{location}{SIDECAR}"} if embedded_type(video) is None else {}
    return {**beside, video: location}


def digest_of(location: str) -> str | None:
    """Return the SHA-256 of the video at a location, hexadecimal; None: there is nothing. Blocks.

    Of a video at a URL only the metadata are read, which hold the digest of what `upload` wrote. Empty: an object that
    dubstage did not write.

    Raises:
        InvalidRequestError: the URL cannot be opened.
        StorageRefusedError, BackendUnavailableError: the store of the URL refuses, or does not answer.
    """
    path = local_path(location)
    if path is not None:
        return sha256_of(Path(path)) if os.path.isfile(path) else None
    return _digest_at(_opened(location, _WRITABLE, "output"))


def _digest_at(backend: StoreBackend) -> str | None:
    """Return the digest that an object's metadata say; empty: they say none; None: there is no object."""
    try:
        with backend.domain_errors():
            return str(backend.files.metadata(backend.root).get(_DIGEST, ""))
    except FileNotFoundError:
        return None


def _opened(location: str, protocols: tuple[str, ...], field: str) -> StoreBackend:
    protocol = protocol_of(location)
    bucket, _, key = location.partition("://")[2].partition("/")
    if protocol not in protocols or not bucket or not key or "::" in location:
        forms = {"s3": "s3://BUCKET/KEY", "https": "https://HOST/PATH", "http": "http://HOST/PATH"}
        expected = ", ".join(forms[name] for name in protocols)
        raise InvalidRequestError(f"{location[:200]!r} cannot be used: give a path or {expected}", field=field)
    if problem := url_problem(location):
        raise InvalidRequestError(f"{location[:200]!r} cannot be used: {problem}", field=field)
    return open_backend(location, what=f"the store of the {field}", setting="the URL")


def _size(backend: StoreBackend, location: str) -> int | None:
    try:
        with backend.domain_errors():
            facts: dict[str, Any] = backend.files.info(backend.root)
    except FileNotFoundError as missing:
        # fsspec says so of every web server that cannot be asked.
        if location.startswith("http") and getattr(missing.__cause__, "status", 0) not in _GONE and missing.__cause__ is not None:
            with backend.domain_errors():
                raise missing.__cause__ from None
        raise ArtefactNotFoundError(f"no such file {location}", resource=location) from None
    if facts.get("type") == "directory":
        raise ArtefactNotFoundError(f"{location} is a folder, not a file", resource=location)
    size = facts.get("size")
    return None if size is None else int(size)


def _copy(source: Any, partial: Path, location: str, field: str, max_bytes: int, confirm: Confirm) -> None:
    copied, began = 0, time.monotonic()
    with open(partial, "wb") as target:
        while piece := source.read(_PIECE_BYTES):
            copied += len(piece)
            if copied > max_bytes:
                raise _too_large(location, field, max_bytes)
            try:
                target.write(piece)
            except OSError as problem:
                raise folder_error(partial.parent, problem) from problem
            confirm()
            spent_s = time.monotonic() - began
            if spent_s > PATIENCE_S + copied / SLOWEST_BYTES_PER_S:
                raise BackendUnavailableError(
                    f"the store of {location} sent {copied / 1e6:.0f} MB in {spent_s:.0f} s, which is too slow"
                )


def folder_error(folder: Path, problem: OSError) -> DubstageError:
    """Return the error for a file that cannot be written to a folder of this machine."""
    if problem.errno in FULL_DISK:
        return StorageFullError(f"no space left in {folder}: free some, or point DUBSTAGE_DATA_DIR elsewhere", subject=str(folder))
    return StorageRefusedError(f"the folder {folder} cannot be used: {_reason(problem)}", subject=str(folder))


def _too_large(location: str, field: str, max_bytes: int) -> InvalidRequestError:
    return InvalidRequestError(f"{location} is larger than {max_bytes / 1e9:.3g} GB, the most that is copied", field=field)


def _reason(problem: Exception) -> str:
    return problem.strerror or str(problem) if isinstance(problem, OSError) else str(problem)
