"""Which files callers may name: those below one folder, and nothing else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.common.errors import InvalidRequest


class MediaFolder:
    """The only folder that RPCs read footage and speech from and write films to.

    Args:
        root: the folder; None: every name is refused.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root.resolve() if root is not None else None

    def source(self, uri: str, field: str) -> Path:
        """The existing file that a uri names.

        Raises:
            InvalidRequest: no uri, no such file, or it lies elsewhere, by `..`, an absolute path or a symbolic link.
        """
        path = self._inside(uri, field)
        if not path.is_file():
            raise InvalidRequest(f"{field}: the media folder has no file {uri!r}", field=field)
        return path

    def output(self, uri: str, field: str) -> Path:
        """The file that may be written under a uri; its folder exists.

        Raises:
            InvalidRequest: no uri, no such folder, a folder of this name, or it lies elsewhere.
        """
        path = self._inside(uri, field)
        if path.is_dir():
            raise InvalidRequest(f"{field}: {uri!r} is a folder: give the name of a film file", field=field)
        if not path.parent.is_dir():
            raise InvalidRequest(f"{field}: the media folder has no folder {str(Path(uri).parent)!r}", field=field)
        return path

    def _inside(self, uri: str, field: str) -> Path:
        if self._root is None:
            raise InvalidRequest(f"{field}: this gateway has no media folder: set DUBSTAGE_MEDIA_DIR", field=field)
        if not uri or "\0" in uri or len(uri) > 4096:
            raise InvalidRequest(f"{field}: name a file of the media folder", field=field)
        path = Path(_local_path(uri, field))
        if ".." in path.parts:
            raise InvalidRequest(f"{field}: {uri!r} has a '..': name the file from the media folder on", field=field)
        try:
            found = (self._root / path).resolve()
        except (OSError, RuntimeError):
            raise InvalidRequest(f"{field}: {uri!r} cannot be followed", field=field) from None
        if not found.is_relative_to(self._root) or found == self._root:
            raise InvalidRequest(f"{field}: {uri!r} lies outside of the media folder", field=field)
        return found


def _local_path(uri: str, field: str) -> str:
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise InvalidRequest(f"{field}: {uri[:200]!r}: only file:/// urls and paths in the media folder can be read", field=field)
    path = unquote(parts.path)
    if "\0" in path:
        raise InvalidRequest(f"{field}: name a file of the media folder", field=field)
    return path
