"""Check of the rows of a batch: pods must be able to open every file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from gateway.batch.kubernetes.settings import JobSettings
from gateway.batch.media import is_url
from gateway.batch.types import Shot
from services.common.errors import InvalidRequest

_FIELDS: Final = ("footage", "speech", "consent", "output")
_DATABASE: Final = "DUBSTAGE_DATABASE_URL"


def check_reach(shots: Iterable[Shot], settings: JobSettings, profile: str, store_url: str) -> None:
    """Check that the workers of a cluster can reach what a batch names.

    Raises:
        InvalidRequest: the workers read another store of batches, a file lies outside of the volumes of the pods, or a row names an
            actor and the workers have no database of actors. The message names the first row and the remedy.
    """
    if _plain(store_url) != _plain(settings.batches_url):
        raise InvalidRequest(
            f"DUBSTAGE_BATCHES_URL: this command writes batches to {store_url}, and the workers of the cluster read "
            f"{settings.batches_url}: set DUBSTAGE_BATCHES_URL={settings.batches_url} here, or batch.url of the chart",
            field="batches_url",
        )
    mounts = [PurePosixPath(mount["mountPath"]) for mount in settings.volume_mounts]
    volumes = f"a file below {', '.join(map(str, mounts))}" if mounts else "mount a volume (batch.extraVolumes of the chart)"
    names = {item["name"] for item in (*settings.env, *settings.profile(profile).env)}
    wrong: list[str] = []
    for row, shot in enumerate(shots):
        for field in _FIELDS:
            place = getattr(shot, field)
            if place and not is_url(place) and not any(PurePosixPath(place).is_relative_to(mount) for mount in mounts):
                wrong.append(
                    f"row {row + 1} ({shot.id}): {field}: {place} is a file that pods cannot open: give a URL such as "
                    f"s3://BUCKET/KEY, or {volumes}"
                )
        if shot.actor and _DATABASE not in names:
            wrong.append(
                f"row {row + 1} ({shot.id}): actor: the workers have no database of actors: set gateway.database of the chart"
            )
    if wrong:
        more = f" ({len(wrong) - 1} more of the kind)" if len(wrong) > 1 else ""
        raise InvalidRequest(wrong[0] + more, field="manifest")


def _plain(url: str) -> str:
    return url.removeprefix("file://").rstrip("/")
