"""The files that callers may name: files below one folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.confinement import confine
from gateway.settings import TENANTS_FOLDER
from services.common.errors import InvalidRequest

_LONGEST_URI: Final = 4096
_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 4000
"""Most bytes of a whole path, less than the 4095 of the system: partial films have longer names in the same folder."""
_WINDOWS: Final = re.compile(r"^[A-Za-z]:[\\/]|\\")
"""Matches paths with a drive or a backslash."""


class MediaFolder:
    """The only folder that RPCs read footage and speech from and write films to.

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
            InvalidRequest: the URI is empty, there is no such file, or the file lies outside of the folder.
        """
        path = self._inside(uri, field)
        if not os.path.isfile(path) or self._is_of_a_tenant(path):
            raise InvalidRequest(f"{field}: the media folder has no file {uri!r}", field=field)
        return path

    def output(self, uri: str, field: str, *, new_folder: bool = False) -> Path:
        """Return the file that may be written under a URI. The file's folder exists, or with `new_folder` nothing of its name.

        Raises:
            InvalidRequest: the URI is empty, names a folder or a symbolic link, or leads to a folder that does not exist or lies
                outside of the media folder.
        """
        path = self._inside(uri, field, as_named=True)
        if self._is_of_a_tenant(path):
            raise self._no_folder(uri, field)
        if path.is_symlink():
            raise InvalidRequest(f"{field}: {uri!r} is a symbolic link: give the name of the file itself", field=field)
        if path.is_dir():
            raise InvalidRequest(f"{field}: {uri!r} is a folder: give the name of a film file", field=field)
        if not path.parent.is_dir() and (path.parent.exists() or not new_folder):
            raise self._no_folder(uri, field)
        return path

    def _is_of_a_tenant(self, path: Path) -> bool:
        """Return whether a path lies in the folder of another tenant: it is answered like one that does not exist."""
        # Some file systems take names in capitals for the same names.
        return self._root is not None and path.relative_to(self._root).parts[0].casefold() == TENANTS_FOLDER

    def _no_folder(self, uri: str, field: str) -> InvalidRequest:
        return InvalidRequest(f"{field}: the media folder has no folder {str(Path(uri).parent)!r}", field=field)

    def _inside(self, uri: str, field: str, *, as_named: bool = False) -> Path:
        """Return the path that a URI leads to, without symbolic links. With `as_named`, the last part is not followed."""
        if self._root is None:
            raise InvalidRequest(
                f"{field}: this gateway reads and writes no media: set DUBSTAGE_MEDIA_DIR to the folder of footage and films",
                field=field,
            )
        if not uri or "\0" in uri:
            raise InvalidRequest(f"{field}: name a file of the media folder", field=field)
        if len(uri) > _LONGEST_URI:
            raise InvalidRequest(f"{field}: the name has {len(uri)} characters, {_LONGEST_URI} at most", field=field)
        path = Path(_local_path(uri, field))
        if _WINDOWS.search(str(path)):
            raise InvalidRequest(
                f"{field}: {uri[:200]!r} is a path of Windows: name the file from the media folder on, with '/' between folders",
                field=field,
            )
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise InvalidRequest(
                f"{field}: a part of the name has more than {_LONGEST_NAME} bytes; no file can have such a name", field=field
            )
        if ".." in path.parts:
            raise InvalidRequest(f"{field}: {uri!r} has a '..': name the file from the media folder on", field=field)
        try:
            whole = self._root / path
            found = whole.parent.resolve() / whole.name if as_named else whole.resolve()
        except (OSError, RuntimeError):
            raise InvalidRequest(f"{field}: {uri!r} cannot be followed", field=field) from None
        if not found.is_relative_to(self._root) or found == self._root:
            raise InvalidRequest(f"{field}: {uri!r} lies outside of the media folder", field=field)
        if len(os.fsencode(found)) > _LONGEST_PATH:
            raise InvalidRequest(
                f"{field}: with its folders, the name has more bytes than the path of a file can have", field=field
            )
        return found


def _local_path(uri: str, field: str) -> str:
    if "://" not in uri:
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise InvalidRequest(f"{field}: {uri[:200]!r} is no URL", field=field) from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise InvalidRequest(
            f"{field}: {uri[:200]!r} cannot be read: give a file:/// URL or a path in the media folder", field=field
        )
    path = unquote(parts.path)
    if "\0" in path:
        raise InvalidRequest(f"{field}: name a file of the media folder", field=field)
    return path
