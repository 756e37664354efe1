"""Content-addressed artefacts: blobs known by their sha256, in a folder or any store that fsspec reaches."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem

from services.common.errors import ArtefactCorrupt, ArtefactNotFound, InvalidRequest, StorageFull
from services.common.tensor_bytes import NamedArrays, decode_arrays, encode_arrays

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")
_COPY_BYTES = 1 << 20
# A quota and a file size limit are to the user what a full disk is.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class ArtefactRef:
    """Where a blob lies and what its bytes must be. Equal bytes in one store have equal references."""

    uri: str
    sha256: str
    """64 lower-case hexadecimal digits."""
    size_bytes: int


class ArtefactStore:
    """A content-addressed store under one root.

    A blob of sha256 `abcd…` lies at `<root>/ab/abcd…`. Writing is atomic: a reader sees the whole blob or none.
    Safe for use by several threads and processes. All methods block: call them from a worker, not from the event loop.

    Args:
        url: a folder, or an fsspec url such as `file:///var/lib/dubstage`, `s3://bucket/prefix`, `memory://tests`.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._fs, root = fsspec.core.url_to_fs(os.fspath(url))
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    @property
    def url(self) -> str:
        """The root as an absolute url with its protocol."""
        return str(self._fs.unstrip_protocol(self._root))

    def put_bytes(self, data: bytes) -> ArtefactRef:
        """Store bytes and return their reference; storing the same bytes again changes nothing.

        Raises:
            StorageFull: no space left; nothing of the blob stays behind.
        """
        ref = self._ref(hashlib.sha256(data).hexdigest(), len(data))
        path = self._path(ref.uri)
        if not self._intact(path, ref):
            with self._full_means_storage_full():
                if self._local:
                    _write_atomically(Path(path), [data])
                else:
                    self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                    self._fs.pipe_file(path, data)
        return ref

    def put_file(self, file: str | os.PathLike[str]) -> ArtefactRef:
        """Store a local file's bytes, in pieces, so that its size does not matter.

        Raises:
            InvalidRequest: there is no such file.
            StorageFull: no space left; nothing of the blob stays behind.
        """
        source = Path(file)
        if not source.is_file():
            raise InvalidRequest(f"no such file: {source}", field="file")
        with source.open("rb") as stream:
            ref = self._ref(_sha256_of(stream), source.stat().st_size)
        path = self._path(ref.uri)
        if not self._intact(path, ref):
            with self._full_means_storage_full():
                if self._local:
                    with source.open("rb") as stream:
                        _write_atomically(Path(path), _pieces(stream))
                else:
                    self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                    self._fs.put_file(str(source), path)
        return ref

    def get_bytes(self, ref: ArtefactRef) -> bytes:
        """Read a blob and check it.

        Raises:
            InvalidRequest: the uri is not one of this store's, or the sha256 is malformed.
            ArtefactNotFound: no blob lies there.
            ArtefactCorrupt: its sha256 is another; the message has uri, expected and actual digest.
        """
        if not _SHA256.fullmatch(ref.sha256):
            raise InvalidRequest(
                f"an artefact's sha256 must be 64 lower-case hexadecimal digits, not {ref.sha256[:80]!r}",
                field="sha256",
            )
        path = self._path(ref.uri)
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            raise ArtefactNotFound(f"no artefact at {ref.uri}", resource=ref.uri) from None
        actual = hashlib.sha256(data).hexdigest()
        if actual != ref.sha256:
            raise ArtefactCorrupt(
                f"artefact {ref.uri} is damaged: sha256 {ref.sha256} expected, {actual} found ({len(data)} bytes)",
                resource=ref.uri,
            )
        return data

    def put_arrays(self, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> ArtefactRef:
        """Store named arrays as safetensors; the order of names and keys makes no difference to the reference.

        Raises:
            TypeError, ValueError: as `encode_arrays`.
            StorageFull: as `put_bytes`.
        """
        return self.put_bytes(encode_arrays(arrays, metadata))

    def get_arrays(self, ref: ArtefactRef) -> NamedArrays:
        """Read named arrays (read-only) and their metadata.

        Raises:
            InvalidRequest, ArtefactNotFound, ArtefactCorrupt: as `get_bytes`; also where the blob holds no arrays.
        """
        return decode_arrays(self.get_bytes(ref))

    def exists(self, ref: ArtefactRef) -> bool:
        """Whether a blob lies at the reference's uri; its bytes are not checked.

        Raises:
            InvalidRequest: the uri is not one of this store's.
        """
        return bool(self._fs.exists(self._path(ref.uri)))

    def delete(self, ref: ArtefactRef) -> bool:
        """Remove a blob; returns whether there was one.

        Raises:
            InvalidRequest: the uri is not one of this store's.
        """
        try:
            self._fs.rm_file(self._path(ref.uri))
        except FileNotFoundError:
            return False
        return True

    def _ref(self, sha256: str, size_bytes: int) -> ArtefactRef:
        return ArtefactRef(f"{self.url}/{sha256[:2]}/{sha256}", sha256, size_bytes)

    def _path(self, uri: str) -> str:
        # Exactly root/ab/abcd…: no other spelling, so neither `..` nor a neighbour's prefix gets out of the root.
        prefix = f"{self.url}/"
        name = uri.removeprefix(prefix)
        if not uri.startswith(prefix) or not _BLOB_NAME.fullmatch(name):
            raise InvalidRequest(f"artefact {uri[:200]!r} does not belong to the store {self.url}", field="uri")
        return f"{self._root}/{name}"

    def _intact(self, path: str, ref: ArtefactRef) -> bool:
        # The bytes are read, not only the size: so putting a blob again repairs one that was damaged.
        try:
            if self._fs.size(path) != ref.size_bytes:
                return False
            with self._fs.open(path, "rb") as stream:
                return _sha256_of(stream) == ref.sha256
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _full_means_storage_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StorageFull(
                f"no space left in the artefact store {self.url}: free some, or point DUBSTAGE_ARTEFACTS_URL elsewhere",
                subject=self.url,
            ) from error


class ArrayCache:
    """Least-recently-used cache of decoded arrays before a store, bounded in bytes, safe for several threads.

    Each hit asks the store whether the blob is still there: what was erased is never served from memory.
    """

    def __init__(self, store: ArtefactStore, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._held: OrderedDict[ArtefactRef, NamedArrays] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the arrays that are held now; never over `max_bytes`."""
        return self._held_bytes

    def get_arrays(self, ref: ArtefactRef) -> NamedArrays:
        """As `ArtefactStore.get_arrays`; the arrays are shared and read-only."""
        with self._lock:
            arrays = self._held.get(ref)
            if arrays is not None:
                self._held.move_to_end(ref)
        if arrays is not None:
            if self._store.exists(ref):
                return arrays
            self.forget(ref)
        arrays = self._store.get_arrays(ref)
        with self._lock:
            if ref not in self._held and arrays.size_bytes <= self._max_bytes:
                self._held[ref] = arrays
                self._held_bytes += arrays.size_bytes
                while self._held_bytes > self._max_bytes:
                    _, evicted = self._held.popitem(last=False)
                    self._held_bytes -= evicted.size_bytes
        return arrays

    def forget(self, ref: ArtefactRef) -> None:
        """Drop one reference's arrays from memory."""
        with self._lock:
            arrays = self._held.pop(ref, None)
            if arrays is not None:
                self._held_bytes -= arrays.size_bytes


def _write_atomically(path: Path, pieces: Iterator[bytes] | list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            # Without it a machine that loses power could keep the name and lose the bytes.
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o640)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_COPY_BYTES):
        yield piece


def _sha256_of(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(stream):
        digest.update(piece)
    return digest.hexdigest()
