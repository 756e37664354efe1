"""Headers of uploads and downloads over HTTP."""

from __future__ import annotations

import hashlib

import pytest

from gateway.api.rest import FileUpload, digest_header, range_of, sha256_of_digest, upload_of
from services.common.errors import InvalidRequestError

SHA256 = hashlib.sha256(b"a").hexdigest()


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"content-length": "7"}, FileUpload(7, 0, "")),
        ({"content-length": "7", "repr-digest": f"md5=:AA==:, {digest_header(SHA256)}"}, FileUpload(7, 0, SHA256)),
        ({"content-length": "3", "content-range": "bytes 4-6/7"}, FileUpload(7, 4, "")),
        ({"content-range": "bytes 0-2/7"}, FileUpload(7, 0, "")),
    ],
)
def test_headers_of_uploads(headers: dict[str, str], found: FileUpload) -> None:
    assert upload_of(headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-length": "-1"},
        {"content-length": "3", "content-range": "bytes 4-7/7"},
        {"content-length": "3", "content-range": "bytes 4-5/7"},
        {"content-range": "bytes 4-5/*"},
        {"content-length": "3", "repr-digest": "sha-256=:AAAA:"},
        {"content-length": "3", "repr-digest": "sha-256=:?:"},
    ],
)
def test_refused_headers_of_uploads(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        upload_of(headers)


def test_digest_round_trip() -> None:
    assert sha256_of_digest(digest_header(SHA256)) == SHA256


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("bytes=0-3", range(4)),
        ("bytes=3-", range(3, 10)),
        ("bytes=3-99", range(3, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-99", range(10)),
        ("bytes=-0", range(10, 10)),
        ("bytes=10-", range(10, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
    ],
)
def test_ranges(text: str, found: range | None) -> None:
    assert range_of(text, 10) == found
