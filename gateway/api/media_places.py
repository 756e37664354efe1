"""The files that callers may name: files of the media folder, and objects below one URL of a bucket."""

from __future__ import annotations

from typing import Final

from gateway.api.media_folder import MediaFolder
from gateway.batch.media import url_problem
from gateway.provenance.places import SIDECAR
from gateway.settings import TENANTS_FOLDER
from services.common.errors import InvalidRequest

_OUTSIDE: Final = frozenset({"", ".", "..", TENANTS_FOLDER})
"""Parts of a path that a store may take for another folder, and the folder of other tenants."""


class MediaPlaces:
    """Files of the media folder, and objects below a URL.

    Args:
        folder: files that callers may name.
        url: s3://BUCKET/FOLDER, without a slash at the end; empty: callers may name no URL.
    """

    def __init__(self, folder: MediaFolder, url: str) -> None:
        self._folder = folder
        self._url = url

    def source(self, place: str, field: str) -> str:
        """Return the absolute path of an existing file of the media folder, or the URL of an object, which is not looked up.

        Raises:
            InvalidRequest: as `MediaFolder.source`, or the URL lies elsewhere.
        """
        return self._object(place, field, place) if _is_url(place) else str(self._folder.source(place, field))

    def output(self, place: str, field: str, *, new_folder: bool) -> str:
        """Return the absolute path of a file that may be written, or a URL.

        Args:
            place: path or URL.
            field: field of the request, for messages.
            new_folder: whether the folder of the file need not exist yet.

        Raises:
            InvalidRequest: as `MediaFolder.output`, or the URL lies elsewhere.
        """
        if not _is_url(place):
            return str(self._folder.output(place, field, new_folder=new_folder))
        return self._object(place, field, f"{place}{SIDECAR}")

    def _object(self, place: str, field: str, longest: str) -> str:
        """Return the URL of an object that callers may name.

        Args:
            place: the URL.
            field: field of the request, for messages.
            longest: the URL, or that of a file beside the object.

        Raises:
            InvalidRequest: the URL lies elsewhere, or can name no object.
        """
        if not self._url:
            raise InvalidRequest(
                f"{field}: {place[:200]!r} cannot be used: this gateway takes no URLs: set DUBSTAGE_MEDIA_URL to a folder of a "
                "bucket",
                field=field,
            )
        below = place.removeprefix(f"{self._url}/")
        if below == place or _OUTSIDE.intersection(below.split("/")) or any(sign in below for sign in "?#*") or "::" in place:
            raise InvalidRequest(
                f"{field}: {place[:200]!r} cannot be used: give a path in the media folder, or an object below {self._url}/",
                field=field,
            )
        if problem := url_problem(longest):
            raise InvalidRequest(f"{field}: {place[:200]!r} cannot be used: {problem}", field=field)
        return place


def _is_url(place: str) -> bool:
    return ("://" in place or "::" in place) and not place.startswith("file://")
