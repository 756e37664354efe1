"""Content-addressed artefacts: blobs named by their sha256, in a folder or any store that fsspec reaches.

`ArrayCache` keeps decoded arrays, so that many streams read a bank or an actor once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.common.errors import ArtefactCorruptError, ArtefactNotFoundError, InvalidRequestError, StorageRefusedError
from services.common.files import (
    BLOB_MODE,
    PARTIAL,
    changed_meanwhile,
    create_whole,
    digest_and_size,
    pieces_of,
    sha256_of,
    time_of,
    unchanged,
    write_whole,
)
from services.common.server.call_context import DEFAULT_TENANT, charge, current_caller
from services.common.store.backends import open_backend

if TYPE_CHECKING:
    import numpy.typing as npt

    from services.common.store.tensor_bytes import NamedArrays

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")
# Each piece is one request: small pieces would cost a remote store more in round trips than in bytes.
_REMOTE_BYTES = 8 << 20
_REF_PARTS: Final = frozenset({"uri", "sha256", "size_bytes"})
_MAX_URI_CHARACTERS: Final = 2048
OWNER: Final = "dubstage-database.json"
"""Name of the object that names the owner of a store. It is no blob's name."""
MAX_ARRAYS_BYTES: Final = 1 << 30
"""Largest artefact whose arrays a stage reads, bytes: 20 times a mouth bank of ten minutes."""


@dataclass(frozen=True, slots=True)
class ArtefactRef:
    """Place and digest of a blob. Equal bytes in one store have equal references."""

    uri: str
    sha256: str
    """64 lower-case hexadecimal digits."""
    size_bytes: int
    """0: unknown."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Blob in a store, and the time when it was stored (Unix time, seconds)."""

    ref: ArtefactRef
    put_at: float


def tenants_store(root: str, tenant: str) -> str:
    """Return the root of a tenant's artefacts in the store of an installation.

    Args:
        root: url or path of the installation's store, which is the store of the default tenant.
        tenant: name of the tenant.
    """
    return root if tenant == DEFAULT_TENANT else f"{root.rstrip('/')}/tenants/{tenant}"


def check_ref(ref: ArtefactRef, field: str = "") -> None:
    """Check the form of a reference, without the store.

    Args:
        ref: the reference.
        field: field of the request that holds the reference, for the error.

    Raises:
        InvalidRequestError: the uri is too long, the sha256 is no digest, or the size is negative.
    """
    prefix, start = (f"{field}.", f"{field}: ") if field else ("", "")
    if len(ref.uri) > _MAX_URI_CHARACTERS:
        raise InvalidRequestError(
            f"{start}an artefact's uri has at most {_MAX_URI_CHARACTERS} characters, this one has {len(ref.uri)}",
            field=f"{prefix}uri",
        )
    if not _SHA256.fullmatch(ref.sha256):
        raise InvalidRequestError(
            f"{start}an artefact's sha256 must be 64 lower-case hexadecimal digits, not {ref.sha256[:80]!r}",
            field=f"{prefix}sha256",
        )
    if ref.size_bytes < 0:
        raise InvalidRequestError(
            f"{start}an artefact's size_bytes must not be negative, got {ref.size_bytes}", field=f"{prefix}size_bytes"
        )


@contextlib.contextmanager
def artefact_field(field: str) -> Iterator[None]:
    """Name the field of the request in errors about the artefact that the block reads: that code knows no request.

    Args:
        field: field of the reference. An error about a part of the reference gets the field of the part, such as `bank.uri`.
    """
    try:
        yield
    except InvalidRequestError as error:
        part = error.field.rpartition(".")[2]
        error.field = f"{field}.{part}" if part in _REF_PARTS else field
        raise


class ArtefactStore:
    """Content-addressed store under one root.

    A blob of sha256 `abcd…` lies at `<root>/ab/abcd…`. Writing is atomic: a reader sees the whole blob or no blob. Any number
    of threads, processes and machines may store the same blob at once. All methods block: call them from a worker, not from
    the event loop. Each raises StorageRefusedError where the store refuses (credentials, permissions, no such bucket), and
    BackendUnavailableError where the store does not answer after bounded attempts.

    Args:
        url: a folder, or an fsspec url such as `file:///var/lib/dubstage`, `s3://bucket/prefix`, `memory://tests`. S3 takes
            its credentials, region and endpoint from the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`…).
        by_tenant: the root is that of the tenant who calls (`tenants_store`): no tenant reaches a blob of another. A stage's store.

    Raises:
        InvalidRequestError: there is no such protocol, or the protocol's package is not installed.
    """

    def __init__(self, url: str | os.PathLike[str], *, by_tenant: bool = False) -> None:
        self._backend = open_backend(url)
        self._fs, self._local, self._by_tenant = self._backend.files, self._backend.local, by_tenant

    @property
    def url(self) -> str:
        """Root as an absolute url with its protocol."""
        return self._own(self._backend.url)

    @property
    def folder(self) -> Path | None:
        """Folder of this machine that holds the blobs; None: the store is elsewhere, such as in a bucket."""
        return Path(self._root) if self._local else None

    @property
    def _root(self) -> str:
        return self._own(self._backend.root)

    def _own(self, root: str) -> str:
        return tenants_store(root, current_caller().tenant) if self._by_tenant else root

    def put_bytes(self, data: bytes) -> ArtefactRef:
        """Store bytes and return their reference. Storing the same bytes again changes at most the blob's time.

        Raises:
            StorageFullError: no space is left. No part of the blob stays behind.
        """
        ref = self._ref(hashlib.sha256(data).hexdigest(), len(data))
        path = self._path(ref.uri)
        with self._backend.domain_errors():
            if not self._renew(path, ref):
                if self._local:
                    write_whole(Path(path), data, mode=BLOB_MODE, parents=True)
                else:
                    with self._writing(path):
                        self._fs.pipe_file(path, data)
        return ref

    def put_file(self, file: str | os.PathLike[str]) -> ArtefactRef:
        """Store a local file in pieces, so that a large file needs little memory.

        Raises:
            InvalidRequestError: there is no such file, or the file changed while it was stored.
            StorageFullError: no space is left. No part of the blob stays behind.
        """
        source = Path(file)
        if not source.is_file():
            raise InvalidRequestError(f"no such file: {source}", field="file")
        ref = self._ref(*digest_and_size(source))
        path = self._path(ref.uri)
        with self._backend.domain_errors():
            if not self._renew(path, ref):
                # The file is read a second time, and may have changed since.
                if self._local:
                    with source.open("rb") as stream:
                        pieces = unchanged(pieces_of(stream), ref.sha256, source)
                        write_whole(Path(path), pieces, mode=BLOB_MODE, parents=True)
                else:
                    self._upload(source, path, ref)
        return ref

    def _upload(self, source: Path, path: str, ref: ArtefactRef) -> None:
        with self._writing(path):
            self._fs.put_file(str(source), path)
        if digest_and_size(source) != (ref.sha256, ref.size_bytes):
            if not self._intact(path, ref):
                self._fs.rm_file(path)
            raise changed_meanwhile(source)

    def get_bytes(self, ref: ArtefactRef, *, max_bytes: int | None = None) -> bytes:
        """Return a blob whose digest was checked.

        Args:
            ref: reference of the blob.
            max_bytes: size of the largest blob that is read; None: any.

        Raises:
            InvalidRequestError: the reference is malformed (see `check_ref`), the uri is not one of this store's or belongs to
                another sha256, or the blob is larger than `max_bytes` or has another size than the reference says.
            ArtefactNotFoundError: no blob lies there.
            ArtefactCorruptError: the blob has another sha256. The message has the uri and both digests.
            CallTooLargeError: the current call would hold more memory than it may.
        """
        path = self._path_of(ref)
        if max_bytes is not None:
            size = self._size(path) or 0
            if size > max_bytes:
                raise InvalidRequestError(
                    f"artefact {ref.uri} has {size} bytes, and at most {max_bytes} are read: it is no artefact of this kind",
                    field="uri",
                )
            charge(size)
        try:
            with self._backend.domain_errors():
                data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            raise ArtefactNotFoundError(f"no artefact at {ref.uri}", resource=ref.uri) from None
        actual = hashlib.sha256(data).hexdigest()
        if actual != ref.sha256:
            raise ArtefactCorruptError(
                f"artefact {ref.uri} is damaged: sha256 {ref.sha256} expected, {actual} found ({len(data)} bytes)",
                resource=ref.uri,
            )
        if ref.size_bytes and ref.size_bytes != len(data):
            raise InvalidRequestError(
                f"artefact {ref.uri} has {len(data)} bytes, not {ref.size_bytes}: take the whole reference as a stage gave it",
                field="size_bytes",
            )
        return data

    def put_arrays(self, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> ArtefactRef:
        """Store named arrays as safetensors. The order of names and keys makes no difference to the reference.

        Raises:
            TypeError, ValueError: as `encode_arrays`.
            StorageFullError: as `put_bytes`.
        """
        # NumPy is imported by the processes that store arrays: the command line lists and removes blobs without arrays.
        from services.common.store.tensor_bytes import encode_arrays

        return self.put_bytes(encode_arrays(arrays, metadata))

    def get_arrays(self, ref: ArtefactRef, *, max_bytes: int | None = None) -> NamedArrays:
        """Return named arrays (read-only) and their metadata.

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError, CallTooLargeError: as `get_bytes`; InvalidRequestError
                also where the blob holds no arrays.
        """
        from services.common.store.tensor_bytes import decode_arrays

        return decode_arrays(self.get_bytes(ref, max_bytes=max_bytes))

    def exists(self, ref: ArtefactRef) -> bool:
        """Return whether a blob lies at the reference's uri. The bytes are not checked.

        Raises:
            InvalidRequestError: the uri is not one of this store's.
        """
        return self._size(self._path(ref.uri)) is not None

    def check(self, ref: ArtefactRef) -> None:
        """Read a blob in pieces and check that the blob is whole.

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError: as `get_bytes`.
        """
        path = self._path_of(ref)
        if self._size(path) is None:
            raise ArtefactNotFoundError(f"no artefact at {ref.uri}", resource=ref.uri)
        with self._backend.domain_errors():
            intact = self._intact(path, ref)
        if not intact:
            raise ArtefactCorruptError(
                f"artefact {ref.uri} is damaged: its bytes are not the {ref.size_bytes} bytes of sha256 {ref.sha256}",
                resource=ref.uri,
            )

    def stored(self) -> Iterator[StoredBlob]:
        """Yield all blobs of the store, in no particular order. Files that are no blobs are left out."""
        try:
            with self._backend.domain_errors():
                entries: dict[str, dict[str, Any]] = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return
        for path, facts in entries.items():
            name = str(path).removeprefix(f"{self._root}/")
            put_at = time_of(facts)
            if _BLOB_NAME.fullmatch(name) and put_at is not None:
                digest = name.rpartition("/")[2]
                yield StoredBlob(ArtefactRef(f"{self.url}/{name}", digest, int(facts.get("size") or 0)), put_at)

    def remove_partials(self, before: float) -> int:
        """Remove partial files that killed processes left in a folder.

        Args:
            before: Unix time, seconds. Files that were written to later stay.

        Returns:
            Bytes that were freed; 0 for stores other than folders, which keep no such files or do not list them.
        """
        freed = 0
        for partial in Path(self._root).glob(f"*/{PARTIAL}*") if self._local else ():
            with contextlib.suppress(FileNotFoundError):
                facts = partial.stat()
                if facts.st_mtime < before:
                    partial.unlink()
                    freed += facts.st_size
        return freed

    def delete(self, ref: ArtefactRef) -> bool:
        """Remove a blob. Return whether there was one.

        Raises:
            InvalidRequestError: the uri is not one of this store's.
        """
        path = self._path(ref.uri)
        # S3 gives the same answer with and without a blob.
        if self._size(path) is None:
            return False
        try:
            with self._backend.domain_errors():
                self._fs.rm_file(path)
        except FileNotFoundError:
            return False
        return True

    def make_folder(self) -> None:
        """Make the folder of a store in a folder, if that is possible. Whoever writes to the store is told what is wrong."""
        if self._local:
            with contextlib.suppress(OSError):
                os.makedirs(self._root, exist_ok=True)

    @property
    def owner_url(self) -> str:
        """Url of the object that names the owner of the store."""
        return f"{self.url}/{OWNER}"

    def owner(self) -> bytes | None:
        """Return the owner of the store, as `set_owner` was given it; None: the store has none yet."""
        try:
            with self._backend.domain_errors():
                content: bytes = self._fs.cat_file(f"{self._root}/{OWNER}")
                return content
        except FileNotFoundError:
            return None

    def set_owner(self, owner: bytes, *, replace: bool = False) -> bool:
        """Store who counts the blobs of this store, and return whether that was done.

        Args:
            owner: name of the owner, as `owner` returns it.
            replace: replace an owner. False: an owner that is there stays, and of several processes that call at the same time, one
                becomes the owner.

        Raises:
            StorageFullError: no space is left.
        """
        path = f"{self._root}/{OWNER}"
        if not self._local:
            with self._writing(path):
                return self._backend.write(path, owner, replace=replace)
        with self._backend.domain_errors():
            if replace:
                write_whole(Path(path), owner, mode=BLOB_MODE, parents=True)
                return True
            return create_whole(Path(path), owner, mode=BLOB_MODE, parents=True)

    def keeps_old_versions(self) -> bool:
        """Return whether the store keeps the bytes of deleted blobs, as an S3 bucket with versioning. False where that is
        unknown."""
        return self._backend.keeps_old_versions()

    def _ref(self, sha256: str, size_bytes: int) -> ArtefactRef:
        return ArtefactRef(f"{self.url}/{sha256[:2]}/{sha256}", sha256, size_bytes)

    def _path_of(self, ref: ArtefactRef) -> str:
        check_ref(ref)
        path = self._path(ref.uri)
        # The blob is not to blame: DATA_LOSS would alert whoever keeps the store.
        if path.rpartition("/")[2] != ref.sha256:
            raise InvalidRequestError(
                f"artefact {ref.uri} has another sha256 than {ref.sha256}: take the whole reference as a stage gave it",
                field="sha256",
            )
        return path

    def _path(self, uri: str) -> str:
        # The path is exactly root/ab/abcd…: no other spelling is accepted, so neither `..` nor a neighbour's prefix leaves the
        # root.
        prefix = f"{self.url}/"
        name = uri.removeprefix(prefix)
        if not uri.startswith(prefix) or not _BLOB_NAME.fullmatch(name):
            raise InvalidRequestError(
                f"artefact {uri[:200]!r} does not belong to the store {self._backend.public_url}, which DUBSTAGE_ARTEFACTS_URL "
                "names here: let all stages and the gateway name the same store; where the store moved, name its old place again, "
                "or make the artefact anew (enrol the actor again, start the job again)",
                field="uri",
            )
        return f"{self._root}/{name}"

    def _size(self, path: str) -> int | None:
        """Return the size in bytes of the blob at a path; None where there is no blob."""
        try:
            with self._backend.domain_errors():
                return int(self._fs.size(path))
        except FileNotFoundError:
            return None

    def _renew(self, path: str, ref: ArtefactRef) -> bool:
        """Return whether an intact blob lies there already, and let the blob count as new if so.

        In a folder the blob's time becomes now, so that a removal of old blobs spares the blob until the caller has counted it.
        Other stores cannot change the time.
        """
        if not self._intact(path, ref):
            return False
        try:
            if self._local:
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:
            # Another user's file, or a folder that may only be read: the bytes are there all the same.
            pass
        return True

    def _intact(self, path: str, ref: ArtefactRef) -> bool:
        # The bytes are read, not only the size, so storing a blob again repairs a damaged blob.
        if self._size(path) != ref.size_bytes:
            return False
        try:
            if self._local:
                with self._fs.open(path, "rb") as stream:
                    return sha256_of(stream) == ref.sha256
            digest = hashlib.sha256()
            for begin in range(0, ref.size_bytes, _REMOTE_BYTES):
                digest.update(self._fs.cat_file(path, start=begin, end=min(begin + _REMOTE_BYTES, ref.size_bytes)))
            return digest.hexdigest() == ref.sha256
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            with self._backend.domain_errors():
                if self._backend.has_folders:
                    self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                yield
        except FileNotFoundError as error:
            raise StorageRefusedError(
                f"the artefact store {self._backend.where} takes nothing: {error}", subject=self.url
            ) from error


class ArrayCache:
    """Least-recently-used cache of the arrays of a store, bounded in bytes, safe for several threads.

    Each hit asks the store whether the blob is still there: an erased blob is never served from memory.
    """

    def __init__(self, store: ArtefactStore, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._held: OrderedDict[ArtefactRef, NamedArrays] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def get_arrays(self, ref: ArtefactRef) -> NamedArrays:
        """Return what `ArtefactStore.get_arrays` returns, at most MAX_ARRAYS_BYTES. The arrays are shared and read-only."""
        with self._lock:
            arrays = self._held.get(ref)
            if arrays is not None:
                self._held.move_to_end(ref)
        if arrays is not None:
            if self._store.exists(ref):
                return arrays
            self.forget(ref)
        arrays = self._store.get_arrays(ref, max_bytes=MAX_ARRAYS_BYTES)
        with self._lock:
            if ref not in self._held and arrays.size_bytes <= self._max_bytes:
                self._held[ref] = arrays
                self._held_bytes += arrays.size_bytes
                while self._held_bytes > self._max_bytes:
                    _, evicted = self._held.popitem(last=False)
                    self._held_bytes -= evicted.size_bytes
        return arrays

    def forget(self, ref: ArtefactRef) -> None:
        """Drop the arrays of one reference from memory."""
        with self._lock:
            arrays = self._held.pop(ref, None)
            if arrays is not None:
                self._held_bytes -= arrays.size_bytes
