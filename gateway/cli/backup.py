"""`dubstage backup`: write all actors of the installation to one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.actors.installation import open_installation
from gateway.backup.write import write_backup
from gateway.cli import options
from gateway.cli.app import app
from gateway.cli.console import say, say_json, say_result, shown_path, wants_json
from gateway.cli.progress import StepProgress
from gateway.cli.values import shown_size


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="File to write. Only its owner can read it.")],
    without: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Actor to leave out. Repeatable.", show_default=False)
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="EARLIER.tar",
            help="Earlier backup of the installation. Blobs that EARLIER.tar or its bases hold are not written again: "
            "`dubstage restore` needs these files too.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    _: options.AsJson = False,
) -> None:
    """Write all actors, consent records, operations, receipts and keys of the installation to one file.

    The file holds the blobs that the actors need, also those of an object store, and the keys that sign receipts and videos: keep
    the file secret. It holds batches, but no videos and no running jobs. Erasing a person does not reach files that were written
    before: take a new backup without --base, and delete them.
    """
    with open_installation(options.gateway_settings()) as installation, StepProgress() as progress:
        left_out = frozenset(without or ())
        written = write_backup(installation, file, without=left_out, base=base, overwrite=overwrite, on_blob=progress)
    new = "" if base is None else "new "
    say(f"{written.actors} actors, {written.blobs} {new}blobs, {shown_size(written.blob_bytes)}")
    say_result(str(file))
    if wants_json():
        say_json(
            {"outputUri": shown_path(file), "numActors": written.actors, "numBlobs": written.blobs, "blobBytes": written.blob_bytes}
        )
