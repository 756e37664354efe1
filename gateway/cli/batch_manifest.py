"""The manifest of `dubstage batch`, checked with the files and the actors that its rows name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.actors.store import ActorStore
from gateway.batch.manifest import ActorLookup, Manifest, manifest_or_mistakes
from gateway.cli.console import say
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequest

SHOWN_MISTAKES: Final = 50
"""Most mistakes of a manifest that are printed."""


def checked_manifest(settings: GatewaySettings, path: Path, name: str | None, *, check: bool) -> Manifest:
    """Read and check a manifest. If rows have mistakes, print them, at most `SHOWN_MISTAKES`.

    Args:
        settings: settings of the command.
        path: file of the manifest.
        name: name of the batch; None: made from the name of the file.
        check: whether to look for the files and the actors of the rows.

    Raises:
        InvalidRequest: the manifest is wrong. The message says how many mistakes there are.
        StorageRefused, BackendUnavailable: the database of actors, or the store of a URL, cannot be used.
    """
    if check:
        with ActorStore(settings) as actors:
            found = manifest_or_mistakes(path, name=name, method_of=ActorLookup(actors).method_of)
    else:
        found = manifest_or_mistakes(path, name=name, check_files=False)
    if isinstance(found, Manifest):
        return found
    if len(found) == 1:
        raise InvalidRequest(found[0], field="manifest")
    for mistake in found[:SHOWN_MISTAKES]:
        say(mistake)
    hidden = len(found) - SHOWN_MISTAKES
    more = f", {hidden} of them not shown" if hidden > 0 else ""
    raise InvalidRequest(f"{path}: {len(found)} mistakes{more}; nothing was started", field="manifest")
