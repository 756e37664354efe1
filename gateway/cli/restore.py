"""`dubstage restore`: fill an empty installation from the file of a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.actors.installation import open_installation
from gateway.backup.archive import read_manifest
from gateway.backup.restore import restore_backup
from gateway.cli.app import app
from gateway.cli.console import say, say_json, wants_json
from gateway.cli.options import AsJson, gateway_settings
from gateway.cli.progress import StepProgress
from gateway.cli.values import shown_size


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="File that `dubstage backup` wrote.")],
    base: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="EARLIER.tar", help="Backup that FILE.tar is based on. Repeatable: all of them are needed.", show_default=False
        ),
    ] = None,
    _: AsJson = False,
) -> None:
    """Fill an empty installation from FILE.tar. All files are checked first.

    Persons who were erased after the backup was taken come back: erase them again.
    """
    # A file that is no backup is refused before the installation makes a database.
    read_manifest(file)
    # The store belongs to the database that was lost. The backup says which.
    with open_installation(gateway_settings(), claim_artefacts=False) as installation, StepProgress() as progress:
        restored = restore_backup(installation, file, bases=base or (), on_blob=progress)
    say(f"{restored.actors} actors, {restored.blobs} blobs, {shown_size(restored.blob_bytes)}, as of {restored.created_at}")
    say("persons who were erased after that time are here again: erase them with `dubstage actor erase ID`")
    if wants_json():
        counts = {"numActors": restored.actors, "numBlobs": restored.blobs, "blobBytes": restored.blob_bytes}
        say_json({**counts, "createTime": restored.created_at})
