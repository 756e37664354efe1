"""`dubstage watermark`: publish whom to ask about the watermarks of this installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from gateway.cli import options
from gateway.cli.app import command_group
from gateway.cli.console import check_new_file, say, say_json, say_result, shown_path, wants_json, write_new_file
from gateway.provenance.directory import Entry, signed_entry
from gateway.provenance.installation import open_sealer
from gateway.provenance.watermark.payload import installation_of
from services.common.errors import InvalidRequestError

commands = command_group("watermark", "Publish whom to ask about the watermarks of this installation.")


@commands.command("publish")
def publish(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="New file for the entry.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of this installation, for people.")],
    contact: Annotated[
        str, typer.Option(metavar="URL", help="Page (https://...) or address (mailto:...) that answers questions about watermarks.")
    ],
    _: options.AsJson = False,
) -> None:
    """Write a signed entry for directories of installations, which `dubstage inspect --directory` reads.

    Publish the file. A directory of several installations is a file with their entries, one per line.
    """
    settings = options.gateway_settings()
    if not (settings.watermark and settings.watermark_public):
        raise InvalidRequestError(
            "this installation writes no public watermarks: set DUBSTAGE_WATERMARK and DUBSTAGE_WATERMARK_PUBLIC to true",
            field="watermark_public",
        )
    check_new_file(output)
    sealer = open_sealer(settings)
    assert sealer.watermark_key is not None
    try:
        entry = Entry(installation=f"{installation_of(sealer.watermark_key):03x}", name=name, contact=contact)
    except ValidationError as problem:
        field = str(problem.errors()[0]["loc"][0])
        allowed = "1 to 200 characters" if field == "name" else "https://... or mailto:..., 400 characters at most"
        raise InvalidRequestError(f"--{field} is {allowed}", field=field) from None
    write_new_file(output, signed_entry(entry, sealer, output))
    say(f"installation {entry.installation}")
    say_result(str(output))
    if wants_json():
        say_json({"outputUri": shown_path(output), "installation": entry.installation})
