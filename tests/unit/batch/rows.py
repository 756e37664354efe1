"""Shots of rows and manifests without mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.batch.manifest import manifest_or_mistakes, shot_of
from gateway.batch.records import Progress, ShotWork, progress_from, unix_time
from gateway.batch.types import Manifest, ShotRecord, ShotSpec
from gateway.dub.request.spec_text import fill, plain


def read_manifest(path: Path, **more: Any) -> Manifest:
    """Return the manifest of a file."""
    found = manifest_or_mistakes(path, **more)
    assert isinstance(found, Manifest), found
    return found


def shot_of_row(**row: Any) -> ShotSpec:
    """Return the shot of a row."""
    shot, mistakes = shot_of(1, row)
    assert shot is not None, mistakes
    return shot


def changed_shot(shot: ShotSpec, **row: Any) -> ShotSpec:
    """Return a shot with other values of the fields of its row."""
    shot_id = row.pop("id", shot.id)
    dub = type(shot.dub)()
    dub.CopyFrom(shot.dub)
    mistakes = fill(dub, row)
    assert not mistakes, mistakes
    return replace(shot, id=shot_id, dub=plain(dub))


def progress_of(records: Sequence[ShotRecord], *, now_s: float | None = None) -> Progress:
    """Progress of a batch with these records."""
    return progress_from(
        [ShotWork(one.state, bool(one.look), one.frames, unix_time(one.begun_at), unix_time(one.ended_at)) for one in records],
        now_s=now_s,
    )
