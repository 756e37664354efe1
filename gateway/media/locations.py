"""Locations of the files of shots as texts: a path of this machine, or a URL."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_KEY: Final = 1024
"""Most bytes of the key of an object of S3."""
_LONGEST_ENDING: Final = 16
"""Most characters of the ending of a URL that its copy keeps. The name of a file has fewer bytes than the key of an object."""


def is_url(location: str) -> bool:
    """Return whether a location is a URL other than `file://`."""
    return local_path(location) is None


def local_path(location: str) -> str | None:
    """Return the path of a location that is a path or a `file://` URL; None: the location is another URL."""
    if location.startswith("file://"):
        return location.removeprefix("file://")
    return None if protocol_of(location) else location


def protocol_of(location: str) -> str:
    """Return the protocol of a URL, such as `s3`; empty: the location is a path."""
    match = _URL.match(location)
    return match[1] if match else ""


def has_unknown_protocol(location: str) -> bool:
    """Return whether a location is a URL that dubstage does not read. The URL may be an entity reference of an asset manager."""
    return protocol_of(location) not in ("", "file", "s3", "https", "http")


def url_problem(url: str) -> str:
    """Return what keeps a URL from naming a file, in words; empty: nothing. The file is not looked up."""
    if _CONTROL.search(url):
        return "a URL has no line break and no other control character"
    key = url.partition("://")[2].partition("/")[2].encode()
    if url.startswith("s3://") and len(key) > _LONGEST_KEY:
        return f"the key of an object has {_LONGEST_KEY} bytes at most, and this one has {len(key)}"
    return ""


def copy_name(field: str, url: str) -> str:
    """Return the name of the copy of a URL's file: the field of the request, with the ending of the URL."""
    ending = PurePosixPath(url.partition("?")[0]).suffix
    return field + ending if len(ending) <= _LONGEST_ENDING else field
