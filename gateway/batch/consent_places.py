"""Consent records of shots, by path or by URL."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from gateway.batch.media import fetched, local_path
from gateway.consent.files import read_consent
from gateway.consent.record import Consent
from services.common.errors import InvalidRequest

_LARGEST: Final = 1 << 20
"""Largest file that is copied from a URL, bytes."""


def consent_at(place: str) -> Consent:
    """Return the consent record at a place. Blocks.

    Args:
        place: absolute path or URL.

    Raises:
        InvalidRequest: there is no such file, or the file is no consent record. The message names the place.
        ArtefactNotFound: no file lies at the URL.
        StorageRefused, BackendUnavailable: the store of the URL refuses, or does not answer.
    """
    path = local_path(place)
    if path is not None:
        return read_consent(Path(path))
    with tempfile.TemporaryDirectory() as folder:
        copy = fetched(place, Path(folder), field="consent", max_bytes=_LARGEST)
        try:
            return read_consent(copy)
        except InvalidRequest as error:
            raise InvalidRequest(error.message.replace(str(copy), place), field=error.field) from error.__cause__
