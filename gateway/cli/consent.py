"""`dubstage consent`: complete, sign, check, show and withdraw consent records."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.actors.consents import Withdrawal
from gateway.actors.create import digests_of_files
from gateway.actors.store import ActorStore
from gateway.actors.stored import check_actor_id
from gateway.cli import options
from gateway.cli.app import command_group, run_async
from gateway.cli.console import say, say_json, say_output, say_result, say_warning, wants_json
from gateway.consent.files import read_consent, write_new_consent
from gateway.consent.keys import check_signature, read_keys, read_private_key, signed
from gateway.consent.record import Consent, canonical_form, check_scope, check_time, consent_line, digest_of, embedding_text, use_of
from gateway.consent.subject import ENOUGH_FRAMES
from gateway.dub.analyse.face_choice import parse_face
from gateway.dub.learn.subjects import face_of_videos
from gateway.stages.opening import open_stage, open_stages
from services.common.errors import ConsentUnsignedError, InvalidRequestError

commands = command_group("consent", "Complete, sign, check, show and withdraw consent records.")

Record = Annotated[Path, typer.Argument(metavar="FILE", help="JSON file with the consent record.")]


@commands.command("subject")
def subject(
    footage: Annotated[
        list[Path],
        typer.Argument(metavar="FOOTAGE...", help="Videos or pictures of the person. Each shows the person's face."),
    ],
    face: options.Face = "auto",
    actor: Annotated[str | None, typer.Option(metavar="ID", help="Actor that the record is for. Default: any actor.")] = None,
    with_face: Annotated[
        bool,
        typer.Option("--with-face/--without-face", help="Put the face into the record, or name the person by the files alone."),
    ] = True,
    record: Annotated[
        Path | None,
        typer.Option(metavar="RECORD.json", help="Record to add the fields to. Without it, the fields are printed."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="NEW.json", help="New file for the completed record.")
    ] = None,
    stages: options.Stages = None,
    _: options.AsJson = False,
) -> None:
    """Print the fields of a record that say whose face the record is about: the face in FOOTAGE, and the SHA-256 of the files.

    With --record and --output, the fields are written into a new record without a signature: sign the new record.
    """
    if (record is None) != (output is None):
        raise InvalidRequestError("give --record and --output together", field="record")
    plain = read_consent(record) if record is not None else None
    settings, choice = options.gateway_settings(stages), parse_face(face)
    fields: dict[str, Any] = {"actor": check_actor_id(actor)} if actor is not None else {}
    fields["footage_sha256"] = list(dict.fromkeys(digests_of_files(footage)))

    async def measure() -> None:
        # Only the sound of the footage says who speaks.
        opened = open_stages(settings) if choice.kind in ("auto", "speaker") else open_stage(settings, "face")
        async with opened as there:
            person = await face_of_videos(there, footage, choice, threads=settings.compute_threads)
        if person.frames < ENOUGH_FRAMES:
            say_warning(
                f"only {person.frames} frames show the face: such a face tells people apart less surely than one of "
                f"{ENOUGH_FRAMES} frames and more. A video of the person is better"
            )
        fields["face"] = {"network": person.network, "embedding": embedding_text(person.vector)}

    if with_face:
        run_async(measure())
    if plain is None or output is None:
        say_json(fields)
        return
    new = {**plain.fields(), **fields}
    had_signature = new.pop("signature", None) is not None
    write_new_consent(output, Consent.model_validate(new))
    if had_signature:
        say_warning(f"the signature of {record} does not fit the new record and is left out: sign {output}")
    say_output(output)


@commands.command("sign")
def sign(
    file: Record,
    key: Annotated[
        Path,
        typer.Option(
            metavar="PRIVATE.pem", help="Ed25519 private key. `openssl genpkey -algorithm ed25519 -out PRIVATE.pem` makes one."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="SIGNED.json", help="New file for the signed record.")],
    _: options.AsJson = False,
) -> None:
    """Sign the record of FILE, and write the signed record."""
    record = signed(read_consent(file), read_private_key(key))
    write_new_consent(output, record)
    assert record.signature is not None
    say(f"signed with the key {record.signature.key}")
    say_output(output)


@commands.command("verify")
def verify(
    file: Record,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="PUBLIC.pem", help="Trusted public keys: a PEM file or a folder of PEM files. Default: DUBSTAGE_CONSENT_KEYS."
        ),
    ] = None,
    project: options.Project = "",
    language: options.Language = "",
    _: options.AsJson = False,
) -> None:
    """Check that the record of FILE is signed with a trusted key, holds now, and covers the project and the language.

    Withdrawals are not looked up: `dubstage consent show` does that.
    """
    record, subject = read_consent(file), str(file)
    path = keys or options.gateway_settings().consent_keys
    if path is None:
        raise InvalidRequestError("there are no trusted keys: give --keys PUBLIC.pem, or set DUBSTAGE_CONSENT_KEYS", field="keys")
    trusted = read_keys(path, field="--keys" if keys is not None else "DUBSTAGE_CONSENT_KEYS")
    if record.signature is None:
        raise ConsentUnsignedError(f"{file} is not signed: `dubstage consent sign` signs a record", subject=subject)
    check_signature(record, trusted, subject)
    check_time(record, datetime.datetime.now(datetime.UTC), subject)
    if project or language:
        asked = use_of(project, language or None)
        check_scope(record, asked, subject)
    say(consent_line(record))
    if not record.names_subject:
        say_warning(f"{file} does not say whose face it is about: installations that require records refuse it for new work")
    say_result(digest_of(record))
    if wants_json():
        say_json({"recordSha256": digest_of(record)})


@commands.command("show")
def show(file: Record, _: options.AsJson = False) -> None:
    """Print the record of FILE as JSON, with its digest, the bytes that a signature signs, and why the record is refused now."""
    record = read_consent(file)
    with _actors() as actors:
        withdrawn = actors.consents.withdrawn({digest_of(record)})
        (problem,) = actors.consents.problems([record])
    say_json(_facts(record, withdrawn.get(digest_of(record), ""), problem))
    if problem:
        say_warning(problem)


@commands.command("revoke")
def revoke(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="JSON file with the consent record.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="ID", help="Withdraw the record of this actor.")] = None,
    _: options.AsJson = False,
) -> None:
    """Withdraw a consent record for ever, in all processes that use the same database.

    New work with the record is refused. Live streams, dubs and enrolments with the record end within seconds. What was made before
    stays: `dubstage actor erase` erases the person.
    """
    if (file is None) == (actor is None):
        raise InvalidRequestError("give either FILE or --actor ID", field="file")
    record = read_consent(file) if file is not None else None
    with _actors() as actors:
        if record is not None:
            done = actors.consents.withdraw(digest_of(record))
        else:
            actor_id = check_actor_id(actor or "")
            done = actors.consents.withdraw_of(actor_id, actors.show(actor_id).consent)
    _say_withdrawal(done)


@contextmanager
def _actors() -> Iterator[ActorStore]:
    with ActorStore(options.gateway_settings(), claim_artefacts=False) as actors:
        yield actors


def _facts(record: Consent, withdrawn_at: str, problem: str) -> dict[str, object]:
    return {
        "record": record.fields(),
        "sha256": digest_of(record),
        "signed_text": canonical_form(record).decode(),
        "withdrawn_at": withdrawn_at,
        "problem": problem,
    }


def _say_withdrawal(done: Withdrawal) -> None:
    say(f"withdrawn at {done.withdrawn_at}; actors with this record: {', '.join(done.actor_ids) or 'none'}")
    say_result(done.record_sha256)
    if wants_json():
        from gateway.cli.documents import withdrawal_document

        say_json(withdrawal_document(done))
