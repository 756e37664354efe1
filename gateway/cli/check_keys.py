"""Check of `dubstage doctor` on the key that receipts and audit logs are signed with."""

from __future__ import annotations

import os

from gateway.audit.log import REMEDY, recorded_signing_key
from gateway.database.session import Database
from gateway.private_files import data_folder
from gateway.settings import GatewaySettings
from gateway.signatures import KEY_FILE, signing_key
from services.common.errors import StorageRefused

_DIGITS = 12
"""Digits of a key's id that are shown."""


def check_signing_key(settings: GatewaySettings) -> str:
    """Compare the signing key with that of the gateway that started last with the same database, and return what was found.

    Raises:
        DubstageError: the two differ, or the key or the database cannot be used.
    """
    data_folder(settings.data_dir)
    database = Database(settings.database_url, settings.data_dir, tenant=settings.tenant)
    try:
        recorded = recorded_signing_key(database)[:_DIGITS]
    finally:
        database.close()
    file = settings.signing_key_file or settings.data_dir / KEY_FILE
    if settings.signing_key_file is None and not os.path.lexists(file):
        return f"none in {settings.data_dir}" + (f"; the gateway that started last signs with {recorded}" if recorded else " yet")
    own = signing_key(settings.data_dir, settings.signing_key_file).id[:_DIGITS]
    if recorded not in ("", own):
        raise StorageRefused(
            f"{file} is the key {own}, and the gateway that started last signs with {recorded}: {REMEDY}", subject=str(file)
        )
    return f"{own}, {file}"
