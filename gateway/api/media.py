"""Files for the locations that CreateDub and CreateActor name: below the media folder, or below one URL of a bucket.

Files of the media folder are used where they are. Objects of a bucket are copied to this machine before the work, and a video that
goes to a bucket is uploaded whole after the work.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from gateway.async_utilities import in_thread
from gateway.dub.progress import OnProgress
from gateway.dub.state.scratch import ScratchFolders
from gateway.media.locations import copy_name, is_url, url_problem
from gateway.media.sequence_names import is_sequence
from gateway.provenance.binding import SIDECAR
from gateway.safe_paths import confine
from gateway.settings import TENANTS_FOLDER, GatewaySettings
from gateway.transfer import check_replaceable, fetched, fetched_in_thread, input_problem, upload
from services.common.errors import DubstageError, InvalidRequestError

_LONGEST_URI: Final = 4096
_LARGEST_RECORD: Final = 1 << 20
"""Largest consent record that is copied, bytes."""
_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 4000
"""Most bytes of a whole path, less than the 4095 of the system: partial videos have longer names in the same folder."""
_WINDOWS: Final = re.compile(r"^[A-Za-z]:[\\/]|\\")
"""Matches paths with a drive or a backslash."""
_OUTSIDE: Final = frozenset({"", ".", "..", TENANTS_FOLDER})
"""Parts of a path that a store may take for another folder, and the folder of other tenants."""


class MediaFolder:
    """The only folder that RPCs read footage and speech from and write videos to.

    A name is checked when the request comes. The file may be opened hours later. Then no symbolic link below the folder is followed
    (`confine`), so that a link that somebody put there meanwhile leads nowhere.

    Args:
        root: the folder; None: the gateway refuses every name.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root.resolve() if root is not None else None
        if self._root is not None:
            confine(self._root)

    def source(self, uri: str, field: str) -> Path:
        """Return the existing file that a URI names.

        Raises:
            InvalidRequestError: the URI is empty, there is no such file, or the file lies outside of the folder.
        """
        path = self._inside(uri, field)
        if not os.path.isfile(path) or self._is_of_a_tenant(path):
            if is_sequence(path):
                raise InvalidRequestError(
                    f"{uri!r} is the pattern of an image sequence, which servers do not dub: use `dubstage batch submit`, "
                    "or make a video of it with `dubstage frames to-video`",
                    field=field,
                    named=True,
                )
            raise InvalidRequestError(f"the media folder has no file {uri!r}", field=field, named=True)
        return path

    def output(self, uri: str, field: str, *, new_folder: bool = False) -> Path:
        """Return the file that may be written under a URI. The file's folder exists, or with `new_folder` nothing of its name.

        Raises:
            InvalidRequestError: the URI is empty, names a folder or a symbolic link, or leads to a folder that does not exist or
                lies outside of the media folder.
        """
        path = self._inside(uri, field, as_named=True)
        if self._is_of_a_tenant(path):
            raise self._no_folder(uri, field)
        if path.is_symlink():
            raise InvalidRequestError(f"{uri!r} is a symbolic link: give the name of the file itself", field=field, named=True)
        if path.is_dir():
            raise InvalidRequestError(f"{uri!r} is a folder: give the name of a video file", field=field, named=True)
        if not path.parent.is_dir() and (path.parent.exists() or not new_folder):
            raise self._no_folder(uri, field)
        return path

    def _is_of_a_tenant(self, path: Path) -> bool:
        """Return whether a path lies in the folder of another tenant: it is answered like one that does not exist."""
        # Some file systems take names in capitals for the same names.
        return self._root is not None and path.relative_to(self._root).parts[0].casefold() == TENANTS_FOLDER

    def _no_folder(self, uri: str, field: str) -> InvalidRequestError:
        return InvalidRequestError(f"the media folder has no folder {str(Path(uri).parent)!r}", field=field, named=True)

    def _inside(self, uri: str, field: str, *, as_named: bool = False) -> Path:
        """Return the path that a URI leads to, without symbolic links. With `as_named`, the last part is not followed."""
        if self._root is None:
            raise InvalidRequestError(
                "this gateway reads and writes no media: set DUBSTAGE_MEDIA_DIR to the folder of footage and videos",
                field=field,
                named=True,
            )
        if not uri or "\0" in uri:
            raise InvalidRequestError("name a file of the media folder", field=field, named=True)
        if len(uri) > _LONGEST_URI:
            raise InvalidRequestError(f"the name has {len(uri)} characters, {_LONGEST_URI} at most", field=field, named=True)
        path = Path(_local_path(uri, field))
        if _WINDOWS.search(str(path)):
            raise InvalidRequestError(
                f"{uri[:200]!r} is a path of Windows: name the file from the media folder on, with '/' between folders",
                field=field,
                named=True,
            )
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise InvalidRequestError(
                f"a part of the name has more than {_LONGEST_NAME} bytes; no file can have such a name", field=field, named=True
            )
        if ".." in path.parts:
            raise InvalidRequestError(f"{uri!r} has a '..': name the file from the media folder on", field=field, named=True)
        try:
            whole = self._root / path
            resolved = whole.parent.resolve() / whole.name if as_named else whole.resolve()
        except (OSError, RuntimeError):
            raise InvalidRequestError(f"{uri!r} cannot be followed", field=field, named=True) from None
        if not resolved.is_relative_to(self._root) or resolved == self._root:
            raise InvalidRequestError(f"{uri!r} lies outside of the media folder", field=field, named=True)
        if len(os.fsencode(resolved)) > _LONGEST_PATH:
            raise InvalidRequestError(
                "with its folders, the name has more bytes than the path of a file can have", field=field, named=True
            )
        return resolved


def _local_path(uri: str, field: str) -> str:
    if "://" not in uri:
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise InvalidRequestError(f"{uri[:200]!r} is no URL", field=field, named=True) from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise InvalidRequestError(
            f"{uri[:200]!r} cannot be read: give a file:/// URL or a path in the media folder", field=field, named=True
        )
    path = unquote(parts.path)
    if "\0" in path:
        raise InvalidRequestError("name a file of the media folder", field=field, named=True)
    return path


class MediaLocations:
    """Files of the media folder, and objects below a URL.

    Args:
        folder: files that callers may name.
        url: s3://BUCKET/FOLDER, without a slash at the end; empty: callers may name no URL.
    """

    def __init__(self, folder: MediaFolder, url: str) -> None:
        self._folder = folder
        self._url = url

    def source(self, uri: str, field: str) -> str:
        """Return the absolute path of an existing file of the media folder, or the URL of an object, which is not looked up.

        Raises:
            InvalidRequestError: as `MediaFolder.source`, or the URL lies elsewhere.
        """
        return self._object(uri, field, uri) if _is_url(uri) else str(self._folder.source(uri, field))

    def output(self, uri: str, field: str, *, new_folder: bool) -> str:
        """Return the absolute path of a file that may be written, or a URL.

        Args:
            uri: path or URL.
            field: field of the request, for messages.
            new_folder: whether the folder of the file need not exist yet.

        Raises:
            InvalidRequestError: as `MediaFolder.output`, or the URL lies elsewhere.
        """
        if not _is_url(uri):
            return str(self._folder.output(uri, field, new_folder=new_folder))
        return self._object(uri, field, f"{uri}{SIDECAR}")

    def _object(self, url: str, field: str, longest: str) -> str:
        """Return the URL of an object that callers may name.

        Args:
            url: the URL.
            field: field of the request, for messages.
            longest: the URL, or that of a file beside the object.

        Raises:
            InvalidRequestError: the URL lies elsewhere, or can name no object.
        """
        if not self._url:
            raise InvalidRequestError(
                f"{url[:200]!r} cannot be used: this gateway takes no URLs: set DUBSTAGE_MEDIA_URL to a folder of a bucket",
                field=field,
                named=True,
            )
        below = url.removeprefix(f"{self._url}/")
        if below == url or _OUTSIDE.intersection(below.split("/")) or any(sign in below for sign in "?#*") or "::" in url:
            raise InvalidRequestError(
                f"{url[:200]!r} cannot be used: give a path in the media folder, or an object below {self._url}/",
                field=field,
                named=True,
            )
        if problem := url_problem(longest):
            raise InvalidRequestError(f"{url[:200]!r} cannot be used: {problem}", field=field, named=True)
        return url


def _is_url(uri: str) -> bool:
    return ("://" in uri or "::" in uri) and not uri.startswith("file://")


class Media:
    """Locations that callers of a gateway may name, and the folders for copies.

    Attributes:
        locations: files and objects that callers may name.

    Args:
        locations: see the attribute.
        scratch: folders for copies.
    """

    def __init__(self, locations: MediaLocations, scratch: ScratchFolders) -> None:
        self.locations = locations
        self._scratch = scratch

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """Return the media of the settings.

        Raises:
            InvalidRequestError: the media folder cannot be used.
        """
        return cls(MediaLocations(MediaFolder(settings.media_dir), settings.media_url), ScratchFolders(settings.data_dir))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[RequestMedia]:
        """Give the files of one request. Copies are removed at the end. Errors of the block name the URL in place of the copy."""
        with ExitStack() as stack:
            media = RequestMedia(self.locations, lambda: stack.enter_context(self._scratch.folder()))
            try:
                yield media
            except DubstageError as error:
                raise media.rewrite(error) from error.__cause__
            finally:
                await in_thread(stack.close)

    def scratch(self) -> AbstractContextManager[Path]:
        """Return the context of an empty folder for records, which is removed at the end. Blocks."""
        return self._scratch.folder()

    def close(self) -> None:
        """Remove all folders for copies. All work has ended. Blocks."""
        self._scratch.close()


class RequestMedia:
    """Files of this machine for the locations of one request.

    Args:
        locations: files and objects that callers may name.
        make_folder: makes the folder for copies; called for the first URL.
    """

    def __init__(self, locations: MediaLocations, make_folder: Callable[[], Path]) -> None:
        self._locations = locations
        self._make_folder = make_folder
        self._folder: Path | None = None
        self._sources: dict[Path, tuple[str, str]] = {}
        self._outputs: dict[Path, str] = {}

    def source(self, uri: str, field: str) -> Path:
        """Return the file that a request reads. The copy of an object exists after `fetch`.

        Raises:
            InvalidRequestError: as `MediaLocations.source`.
        """
        location = self._locations.source(uri, field)
        if not is_url(location):
            return Path(location)
        copy = self._copy(location, field)
        self._sources[copy] = (location, field)
        return copy

    def output(self, uri: str, field: str) -> Path:
        """Return the file that a request writes. `deliver` uploads the file if the request names a URL.

        Raises:
            InvalidRequestError: as `MediaLocations.output`.
        """
        location = self._locations.output(uri, field, new_folder=False)
        if not is_url(location):
            return Path(location)
        copy = self._copy(location, field)
        self._outputs[copy] = location
        return copy

    def record(self, uri: str, field: str) -> Path:
        """Return the file of a consent record. An object is copied at once. Blocks.

        Raises:
            InvalidRequestError: as `MediaLocations.source`, or the object is larger than a record.
            ArtefactNotFoundError, StorageRefusedError, BackendUnavailableError: as `gateway.transfer.fetched`.
        """
        file = self.source(uri, field)
        if file not in self._sources:
            return file
        location, _ = self._sources[file]
        return fetched(location, file.parent, field=field, max_bytes=_LARGEST_RECORD)

    def location_of(self, output: Path) -> str:
        """Return the URL that a file is uploaded to, or the path of a file that stays."""
        return self._outputs.get(output) or str(output)

    def check(self, *, overwrite: bool) -> None:
        """Check that all objects can be read, and that outputs may be written. Blocks.

        Args:
            overwrite: whether an object may be replaced that dubstage did not write.

        Raises:
            InvalidRequestError: there is no such object, the object is empty, or an object may not be replaced.
            StorageRefusedError, BackendUnavailableError: the store of a URL refuses, or does not answer.
        """
        for location, field in self._sources.values():
            if problem := input_problem(location):
                raise InvalidRequestError(f"{problem}", field=field, named=True)
        for location in self._outputs.values():
            if not overwrite:
                check_replaceable(location)

    async def fetch(self, report: OnProgress, *, max_bytes: int, confirm: Callable[[], None] = lambda: None) -> bool:
        """Copy all objects to this machine, and return whether there are any: their content may decide the method of the request.

        If this task is cancelled, the copy ends after the piece that is being read.

        Args:
            report: called before and after each copy.
            max_bytes: size of the largest object that is copied.
            confirm: called after each piece; raises an error if the work has ended.

        Raises:
            DubstageError: as `gateway.transfer.fetched`.
        """
        for done, (copy, (location, field)) in enumerate(self._sources.items()):
            report("fetch", done, len(self._sources))
            await fetched_in_thread(location, copy.parent, field=field, max_bytes=max_bytes, confirm=confirm)
            report("fetch", done + 1, len(self._sources))
        return bool(self._sources)

    async def deliver(self, report: OnProgress, *, overwrite: bool, confirm: Callable[[], None]) -> None:
        """Upload the finished outputs that belong to a URL.

        Args:
            report: called before and after each upload.
            overwrite: as in `check`.
            confirm: called before the upload; raises an error if the work has ended.

        Raises:
            DubstageError: as `gateway.transfer.upload`.
        """
        for file, location in self._outputs.items():
            report("upload", 0, 1)
            await in_thread(_uploaded, file, location, overwrite, confirm)
            report("upload", 1, 1)

    def rewrite(self, error: DubstageError) -> DubstageError:
        """Name the locations of the request in the texts of an error, and return the same error."""
        error.change_texts(self.for_caller)
        return error

    def for_caller(self, text: str) -> str:
        """Return a text that names the locations of the request in place of copies."""
        for copy, location in {**{copy: location for copy, (location, _) in self._sources.items()}, **self._outputs}.items():
            text = text.replace(str(copy), location)
        return text

    def _copy(self, location: str, field: str) -> Path:
        if self._folder is None:
            self._folder = self._make_folder()
        return self._folder / copy_name(field, location)


def _uploaded(file: Path, location: str, overwrite: bool, confirm: Callable[[], None]) -> None:
    if not overwrite:
        check_replaceable(location)
    confirm()
    upload(file, location)
