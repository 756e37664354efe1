"""RPCs of MediaService: uploads of a tenant, downloads of its uploads and videos, and the removal of old uploads."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from google.protobuf import empty_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dubstage.gateway.v1 import media_pb2 as pb
from dubstage.gateway.v1 import media_pb2_grpc
from dubstage.gateway.v1.gateway_pb2 import CreateDubRequest
from gateway.api.media import MediaFolder, MediaLocations
from gateway.api.operations import DUB, page_size_from, stored_request
from gateway.api.resources import UPLOADS, id_of, time_message
from gateway.async_utilities import entered_in_threads, in_thread
from gateway.batch.store import BatchStore
from gateway.media.signed_urls import MOST_BYTES, SignedUrl, checked_object, sign_download, sign_upload, stored_bytes
from gateway.media.uploads import (
    FOLDER,
    FileReader,
    PartialUpload,
    StoredUpload,
    UploadFolder,
    UploadsUse,
    sha256_text,
    upload_name,
)
from gateway.operations.store import OperationStore
from gateway.provenance.binding import SIDECAR
from gateway.safe_paths import open_regular
from gateway.settings import GatewaySettings
from gateway.tenants.long_calls import LongCalls
from gateway.tenants.quota import TenantQuota
from gateway.times import DAY_S
from services.common.errors import FileInUseError, FileMissingError, InvalidRequestError
from services.common.server.call_messages import config_message

READY_KEY: Final = "dubstage-ready"
"""Entry of the initial metadata of UploadFile: the gateway waits for the data."""

_REMEMBERED_S: Final = 60.0
"""Seconds in which a file that a batch or a dub names is sent without another look."""
_MOST_DUBS: Final = 1000
"""Newest dubs among whose footage a file is looked for."""

_log = structlog.stdlib.get_logger("dubstage.uploads")


class TenantUploads:
    """The uploads of one tenant.

    Attributes:
        files: the media folder.
        folder: the folder of uploads; None: the gateway has no media folder.
        locations: files and objects of the bucket that callers may name.

    Args:
        settings: settings of the process, with the locations of the tenant.
        operations: the operations whose requests name files.
    """

    def __init__(self, settings: GatewaySettings, operations: OperationStore) -> None:
        self._settings = settings
        self._operations = operations
        self._batches = BatchStore(operations.database)
        self._seen: dict[str, float] = {}
        self.files = MediaFolder(settings.media_dir)
        self.locations = MediaLocations(self.files, settings.media_url)
        self.folder = UploadFolder(settings.media_dir.resolve()) if settings.media_dir is not None else None

    @property
    def max_age_s(self) -> float:
        """Age at which an upload is removed, seconds; 0: never."""
        return self._settings.upload_max_age_days * DAY_S

    def opened(self) -> UploadFolder:
        """Return the folder of uploads.

        Raises:
            InvalidRequestError: the gateway has no media folder.
        """
        if self.folder is None:
            raise InvalidRequestError(
                "this gateway takes no uploads: set its DUBSTAGE_MEDIA_DIR to a folder for footage and videos",
                field="name",
                named=True,
            )
        return self.folder

    def check_free(self, name: str) -> None:
        """Check that no work uses an upload. Blocks.

        Raises:
            FileInUseError: an operation or a shot of a batch that has not ended names the file.
        """
        folder = self.opened()
        if folder.has(name) and folder.path / name in self.in_use():
            raise FileInUseError(
                f"work that has not ended uses {FOLDER}/{name}: wait for its end, or give another name", subject=f"{FOLDER}/{name}"
            )

    def in_use(self) -> Collection[Path]:
        """Return the files that operations and shots of batches name which have not ended. Blocks."""
        paths = set()
        for location in self._named():
            # Objects of a bucket, and files that are gone, are no uploads.
            with suppress(InvalidRequestError):
                paths.add(self.files.source(location, ""))
        return paths

    def _named(self) -> Collection[str]:
        """Return the locations that operations and shots of batches name which have not ended, as they were submitted."""
        locations, after = self._batches.uris_left(), 0
        while page := self._operations.list(after=after, limit=1000, done=False):
            for record in page:
                locations.add(record.output)
                locations.update(files_of(stored_request(record)))
            after = page[-1].number
        return set(filter(None, locations))

    @property
    def bucket_folder(self) -> str:
        """URL of the uploads in the bucket.

        Raises:
            InvalidRequestError: the gateway has no bucket.
        """
        if not self._settings.media_url:
            raise InvalidRequestError(
                "this gateway signs no URLs: set its DUBSTAGE_MEDIA_URL to a folder of a bucket", field="name", named=True
            )
        return f"{self._settings.media_url}/{FOLDER}"

    def free_object(self, name: str) -> str:
        """Return the URL of an upload in the bucket that no work uses. Blocks.

        Raises:
            InvalidRequestError: no upload can have this name, or the gateway has no bucket.
            FileInUseError: an operation or a shot of a batch that has not ended names the object.
        """
        uri = f"{self.bucket_folder}/{upload_name(name)}"
        if uri in self._named():
            raise FileInUseError(f"work that has not ended uses {uri}: wait for its end, or give another name", subject=uri)
        return uri

    def may_get_object(self, uri: str) -> bool:
        """Return whether an object is an upload, or the video or manifest of a dub that has succeeded. Blocks."""
        folder, _, name = uri.rpartition("/")
        if folder == self.bucket_folder and not name.startswith("."):
            return True
        video = uri.removesuffix(SIDECAR)
        return self._operations.was_written({uri, video}) or self._is_of_batch(video)

    def may_download(self, path: Path) -> bool:
        """Return whether a file of the media folder is an upload, or belongs to a dub that has succeeded. Blocks.

        To a dub belong its footage, its video and the manifest of the video. Shots of batches are dubs too.
        """
        if path.parent == self.opened().path and not path.name.startswith("."):
            return True
        video = str(path).removesuffix(SIDECAR)
        return self._operations.was_written({str(path), video}) or self._is_of_batch(video) or self._is_footage(path)

    def _is_of_batch(self, video: str) -> bool:
        return self._remembered(video, lambda: self._batches.has_written(video))

    def _is_footage(self, path: Path) -> bool:
        return self._remembered(str(path), lambda: self._batches.has_dubbed(str(path)) or self._was_dubbed(path))

    def _was_dubbed(self, path: Path) -> bool:
        """Return whether a file is the footage of an operation that succeeded."""
        for uri in {
            CreateDubRequest.FromString(one).dub.footage_uri for one in self._operations.succeeded_requests(DUB, _MOST_DUBS)
        }:
            # Objects of a bucket, and files that are gone, are not sent.
            with suppress(InvalidRequestError):
                if self.files.source(uri, "") == path:
                    return True
        return False

    def _remembered(self, location: str, look: Callable[[], bool]) -> bool:
        # A player asks for many pieces of one video.
        now = time.monotonic()
        if self._seen.get(location, 0.0) > now:
            return True
        allowed = look()
        if allowed:
            self._seen = {**{kept: until for kept, until in self._seen.items() if until > now}, location: now + _REMEMBERED_S}
        return allowed

    def expire(self) -> None:
        """Remove the uploads that are too old. Blocks.

        Raises:
            DubstageError: the folder, the database or the store of batches cannot be used.
        """
        if self.folder is not None:
            removed = self.folder.expire(time.time(), self.max_age_s, self.in_use)
            if removed:
                _log.info("uploads_expired", number=len(removed))


def files_of(message: Message) -> Iterator[str]:
    """Yield the files that a request names in its fields `..._uri` and `..._uris`, also in the messages inside."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in values:
                yield from files_of(inner)
        elif field.name.endswith(("_uri", "_uris")):
            yield from values


class MediaServicer(media_pb2_grpc.MediaServiceServicer):
    """Takes uploads and sends files.

    Args:
        uploads: the uploads of the tenant.
        settings: settings of the process, with the locations of the tenant.
        quota: limits of the tenant.
        long_calls: long calls of all tenants.
    """

    def __init__(self, uploads: TenantUploads, settings: GatewaySettings, quota: TenantQuota, long_calls: LongCalls) -> None:
        self._uploads = uploads
        self._limits = {"most_bytes": settings.uploads_max_bytes, "most_files": settings.uploads_max_files}
        self._quota = quota
        self._long_calls = long_calls
        self._running: set[PartialUpload] = set()
        self._admitting = asyncio.Lock()
        # Name -> size of the file that a signed URL of this gateway still takes, and the end of the URL, Unix time in seconds.
        self._signed: dict[str, tuple[int, float]] = {}

    async def UploadFile(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.UploadFileRequest], context: Any
    ) -> pb.Upload:
        """Write the data of a file, and give the file its name when it is whole."""
        requests = aiter(request_iterator)
        first = await config_message(requests)
        name = id_of(first.name, UPLOADS, "name")
        with self._long_calls.slot():
            async with self._begun(name, first) as partial:
                await in_thread(partial.prepare)
                # A caller may wait for this before it sends data, so that a refusal is not lost among the data.
                await context.send_initial_metadata(((READY_KEY, "1"),))
                if first.data:
                    await in_thread(partial.write, first.data)
                async for request in requests:
                    await in_thread(partial.write, request.data)
                if not partial.missing_bytes:
                    await in_thread(self._uploads.check_free, partial.name)
                await in_thread(partial.finish)
            return await in_thread(self._described, name)

    @asynccontextmanager
    async def _begun(self, name: str, first: pb.UploadFileRequest) -> AsyncIterator[PartialUpload]:
        """Open an upload that the tenant's limits allow, until the end of the block."""
        folder = self._uploads.opened()
        await in_thread(self._uploads.check_free, upload_name(name))
        begun = folder.begin(name, size_bytes=first.size_bytes, sha256=first.sha256, offset=first.offset)
        async with AsyncExitStack() as stack:
            # One after the other, so that two uploads do not take the same room.
            async with self._admitting:
                # A caller who goes away while the file is opened leaves neither a descriptor nor a lock.
                partial = await stack.enter_async_context(entered_in_threads(begun))
                stored = await in_thread(folder.use)
                coming = sum(other.missing_bytes for other in self._running)
                num_bytes = stored.num_bytes - partial.present_bytes + partial.size_bytes + coming
                names = stored.names | {name} | {other.name for other in self._running}
                self._quota.check_uploads(UploadsUse(names, num_bytes), **self._limits)
                self._running.add(partial)
                stack.callback(self._running.discard, partial)
            yield partial

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.Upload:  # noqa: N802
        """Say how much of an upload is there."""
        return await in_thread(self._described, id_of(request.name, UPLOADS, "name"))

    async def ListUploads(self, request: pb.ListUploadsRequest, context: Any) -> pb.ListUploadsResponse:  # noqa: N802
        """List the uploads by name."""
        size = page_size_from(request.page_size)
        uploads = await in_thread(self._uploads.opened().stored)
        page = [upload for upload in uploads if upload.name > request.page_token][: size + 1]
        token = page[size - 1].name if len(page) > size else ""
        return pb.ListUploadsResponse(uploads=[self._message(upload) for upload in page[:size]], next_page_token=token)

    async def DeleteUpload(self, request: pb.DeleteUploadRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        """Remove an upload."""
        name = upload_name(id_of(request.name, UPLOADS, "name"))
        await in_thread(self._uploads.check_free, name)
        await in_thread(self._uploads.opened().remove, name)
        return empty_pb2.Empty()

    async def DownloadFile(  # noqa: N802
        self, request: pb.DownloadFileRequest, context: Any
    ) -> AsyncIterator[pb.DownloadFileResponse]:
        """Send a file, or a part."""
        with self._long_calls.slot():
            # A caller who goes away while the file is opened leaves no descriptor open.
            async with entered_in_threads(self._opened(request.path)) as reader:
                if request.offset > reader.size_bytes:
                    raise InvalidRequestError(
                        f"{request.offset}: the file has {reader.size_bytes} bytes", field="offset", named=True
                    )
                sha256 = await in_thread(self._uploads.opened().sha256, reader.handle)
                yield pb.DownloadFileResponse(size_bytes=reader.size_bytes, sha256=sha256)
                offset = request.offset
                end = min(reader.size_bytes, offset + request.max_bytes) if request.max_bytes else reader.size_bytes
                while offset < end and (data := await in_thread(reader.piece, offset, end)):
                    yield pb.DownloadFileResponse(data=data)
                    offset += len(data)

    async def SignUpload(self, request: pb.SignUploadRequest, context: Any) -> pb.SignedUrl:  # noqa: N802
        """Sign a URL for an upload to the bucket."""
        name, sha256 = id_of(request.name, UPLOADS, "name"), _given_sha256(request.sha256)
        if not 0 < request.size_bytes <= MOST_BYTES:
            raise InvalidRequestError(
                f"{request.size_bytes}: a signed URL takes 1 to {MOST_BYTES} bytes", field="size_bytes", named=True
            )
        uri = await in_thread(self._uploads.free_object, name)
        async with self._admitting:
            sizes = await in_thread(stored_bytes, self._uploads.bucket_folder)
            sizes[name] = request.size_bytes
            # A URL that was signed takes its file until the URL ends, whatever is in the bucket now.
            self._signed = {other: signed for other, signed in self._signed.items() if signed[1] > time.time()}
            for other, (size_bytes, _) in self._signed.items():
                sizes[other] = max(size_bytes, sizes.get(other, 0))
            self._quota.check_uploads(UploadsUse(frozenset(sizes), sum(sizes.values())), **self._limits)
            signed = await in_thread(sign_upload, uri, size_bytes=request.size_bytes, sha256=sha256)
            self._signed[name] = (sizes[name], signed.expires_at)
        return _signed(signed, uri)

    async def FinishUpload(self, request: pb.FinishUploadRequest, context: Any) -> pb.Upload:  # noqa: N802
        """Compare the SHA-256 of an upload in the bucket."""
        name, sha256 = id_of(request.name, UPLOADS, "name"), _given_sha256(request.sha256)
        with self._long_calls.slot():
            uri = await in_thread(self._uploads.free_object, name)
            stored = await in_thread(checked_object, uri, sha256)
        return pb.Upload(name=f"{UPLOADS}/{name}", received_bytes=stored.size_bytes, complete=True, sha256=stored.sha256, uri=uri)

    async def SignDownload(self, request: pb.SignDownloadRequest, context: Any) -> pb.SignedUrl:  # noqa: N802
        """Sign a URL of an object that the caller may download."""
        return _signed(await in_thread(self._signed_download, request.uri), request.uri)

    def _signed_download(self, uri: str) -> SignedUrl:
        """Sign a URL of an object that the caller may download.

        Raises:
            InvalidRequestError: the gateway has no bucket.
            FileMissingError: there is no such object.
        """
        missing = FileMissingError(f"uri: {uri[:200]!r} is no upload, and no video of a dub that has succeeded", resource=uri)
        if not uri.startswith(f"{self._uploads.bucket_folder.removesuffix(FOLDER)}"):
            raise missing
        try:
            location = self._uploads.locations.source(uri, "uri")
        except InvalidRequestError:
            raise missing from None
        if not self._uploads.may_get_object(location):
            raise missing
        return sign_download(location)

    @contextmanager
    def _opened(self, path: str) -> Iterator[FileReader]:
        """Open a file that the caller may download, until the end of the block.

        Raises:
            FileMissingError: there is no such file.
        """
        missing = FileMissingError(
            f"path: {path[:200]!r} is no upload, and neither footage nor video of a dub that has succeeded", resource=path
        )
        self._uploads.opened()
        try:
            file = self._uploads.files.source(path, "path")
        except InvalidRequestError:
            raise missing from None
        if not self._uploads.may_download(file):
            raise missing
        try:
            handle = open_regular(file)
        except OSError:
            raise missing from None
        if handle is None:
            raise missing
        with FileReader(handle) as reader:
            yield reader

    def _described(self, name: str) -> pb.Upload:
        """Return the message of an upload, with the SHA-256 of a complete file."""
        folder = self._uploads.opened()
        message = self._message(folder.get(name))
        if message.complete:
            with self._opened(message.name) as reader:
                message.sha256 = folder.sha256(reader.handle)
        return message

    def _message(self, upload: StoredUpload) -> pb.Upload:
        end = upload.expires_at(self._uploads.max_age_s)
        expires = None if end is None else datetime.datetime.fromtimestamp(int(end), datetime.UTC).isoformat()
        return pb.Upload(
            name=f"{UPLOADS}/{upload.name}",
            received_bytes=upload.received_bytes,
            complete=upload.complete,
            expire_time=None if expires is None else time_message(expires),
        )


def _given_sha256(sha256: str) -> str:
    """Return a SHA-256 in lower case.

    Raises:
        InvalidRequestError: the text is empty, or no SHA-256.
    """
    if not sha256:
        raise InvalidRequestError("give the SHA-256 of the file, 64 hexadecimal digits", field="sha256", named=True)
    return sha256_text(sha256)


def _signed(signed: SignedUrl, uri: str) -> pb.SignedUrl:
    """Return the message of a signed URL.

    Args:
        uri: URL of the object.
    """
    expires = datetime.datetime.fromtimestamp(signed.expires_at, datetime.UTC).isoformat()
    return pb.SignedUrl(
        url=signed.url, http_method=signed.method, headers=signed.headers, expire_time=time_message(expires), uri=uri
    )
