"""`dubstage audit`: list, export and check the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from gateway.actors.store import ActorStore
from gateway.audit.entries import ChainBrokenError, ChainHead
from gateway.audit.export import verify_export, write_export
from gateway.cli import options
from gateway.cli.app import command_group
from gateway.cli.console import printable, say, say_error, say_json, say_output, say_result, say_table, wants_json
from gateway.cli.options import trusted_key
from gateway.times import now

commands = command_group("audit", "List, export and check the audit log: who did what with whose face.")

EXIT_BROKEN: Final = 3
"""Exit code if the log was changed, as of `dubstage inspect` for a video that was changed."""
_SHOWN_DIGITS: Final = 12

Key = Annotated[
    Path | None,
    typer.Option(
        metavar="PUBLIC.pem",
        help="Public key of the installation that exported the log. Default: the key of this installation.",
        show_default=False,
    ),
]


@commands.command("list")
def list_entries(
    actor: Annotated[str, typer.Option(metavar="ID", help="Only entries about this actor.", show_default=False)] = "",
    event: Annotated[
        str,
        typer.Option(
            metavar="EVENT", help="Only this event, such as dub.begun, or all of a kind, such as dub.", show_default=False
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="NUMBER", help="Newest entries to show.")] = 50,
    _: options.AsJson = False,
) -> None:
    """List the newest entries. The id of an actor is shown until the person is erased."""
    with ActorStore(options.gateway_settings(), claim_artefacts=False) as actors:
        entries = actors.audit.newest(limit, actor_id=actor, event=event)
    if wants_json():
        say_json({"entries": entries})
        return
    table = Table("no.", "time", "event", "tenant", "token", "actor", "consent", "details", box=None)
    for entry in entries:
        table.add_row(*_cells(entry))
    say_table(table)


@commands.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="File to write. Only its owner can read it.")],
    overwrite: options.Overwrite = False,
    _: options.AsJson = False,
) -> None:
    """Write the whole log to FILE: one entry per line, and a last line with the signed head."""
    with ActorStore(options.gateway_settings(), claim_artefacts=False) as actors:
        try:
            exported = write_export(actors.audit, actors.erasures.signing_key(), file, at=now(), overwrite=overwrite)
        except ChainBrokenError as problem:
            _say_broken(problem, "the database")
            raise typer.Exit(EXIT_BROKEN) from None
    say(f"{exported.head.sequence} entries, signed with the key {exported.key}")
    say_output(file)


@commands.command("verify")
def verify(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Export to check. Default: the log in the database.", show_default=False)
    ] = None,
    key: Key = None,
    since: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Earlier export. The log in the database must still hold its entries, so that a cut end and a log "
            "that was written anew are found.",
            show_default=False,
        ),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Check that no entry was changed, removed, moved, inserted or cut off. The exit code is 3 if one was.

    FILE is checked with the public key alone: no database is opened. The log in the database has no signed head. To tell that its
    end was cut, give an earlier export with --since.
    """
    source = str(file) if file is not None else "the database"
    try:
        if file is not None:
            exported = verify_export(file, trusted_key(key))
            say(f"exported at {exported.exported_at}, signed with the key {exported.key}")
            head = exported.head
        else:
            earlier = verify_export(since, trusted_key(key)).head if since is not None else ChainHead()
            with ActorStore(options.gateway_settings(), claim_artefacts=False) as actors:
                head = actors.audit.verify(earlier)
    except ChainBrokenError as problem:
        _say_broken(problem, source)
        raise typer.Exit(EXIT_BROKEN) from None
    say(f"{source}: {head.sequence} entries, none changed")
    say_result(head.digest)
    if wants_json():
        say_json({"numEntries": head.sequence, "headSha256": head.digest})


def _say_broken(problem: ChainBrokenError, source: str) -> None:
    say_error(f"{source}: line {problem.line}: {problem.reason}")


def _cells(entry: dict[str, Any]) -> list[str]:
    if "damage" in entry:
        return [str(entry["sequence"]), "", "", "", "", "", "", entry["damage"]]
    people = [name or f"erased ({face[:_SHOWN_DIGITS]})" for face, name in zip(entry["faces"], entry["actor_ids"], strict=True)]
    facts = {**entry["details"], **({"work": entry["work"]} if entry["work"] else {})}
    shown = ", ".join(f"{name}={value}" for name, value in facts.items())
    digests = [digest[:_SHOWN_DIGITS] for digest in entry["consents"]]
    cells = [
        entry["sequence"],
        entry["time"],
        entry["event"],
        entry["by"]["tenant"],
        entry["by"]["token"],
        ", ".join(people),
        " ".join(digests),
        shown,
    ]
    return [printable(str(cell)) for cell in cells]
