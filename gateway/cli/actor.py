"""`dubstage actor`: enrol, show, list and erase people.

Modules that enrol and erase are imported in functions: they take longer to load than a list of the actors takes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gateway.actors.installation import open_installation
from gateway.actors.stored import SUPERSEDED, ActorSummary, check_actor_id
from gateway.cli import options
from gateway.cli.app import command_group, run_async
from gateway.cli.console import (
    check_new_file,
    out,
    printable,
    say,
    say_json,
    say_result,
    say_table,
    say_warning,
    wants_json,
    write_new_file,
)
from gateway.cli.words import COMMAND_LINE
from gateway.consent.record import consent_line, digest_of
from gateway.settings import GatewaySettings
from services.common.methods import DEFAULT_METHOD, STILL_METHOD, combined, method_named
from services.common.texts import in_words

if TYPE_CHECKING:
    from gateway.actors.create import EnrolRequest

commands = command_group("actor", "Enrol people and manage enrolled people.")


async def run_create(settings: GatewaySettings, request: EnrolRequest) -> None:
    """Enrol a person, and print the number of frames, the consent record and the id; with --json, the actor.

    Raises:
        DubstageError: the request was refused, or the enrolment failed.
    """
    from gateway.api.progress import enrolment_steps
    from gateway.cli.progress import StepProgress
    from gateway.engine import Engine, remove_old_jobs
    from gateway.operations.step_paces import StepPaces

    steps = enrolment_steps(method_named(request.method), skip=not request.options.trains)
    paces = StepPaces(settings.data_dir, request.method)
    with open_installation(settings) as installation, StepProgress(steps, paces=paces) as progress:
        # Before the stages are opened, which takes seconds.
        installation.actors.consents.check_enrolment(request.consent, request.use, request.actor_id)
        engine = Engine.of(installation)
        async with installation.stages() as stages:
            actor = await engine.create_actor(request, stages, on_progress=progress, on_footage=progress.footage)
        await remove_old_jobs(installation, engine)
        if wants_json():
            from gateway.cli.documents import actor_documents

            (document,) = actor_documents(installation.actors, [installation.actors.show(actor.actor_id)])
    for warning in actor.warnings:
        say_warning(warning)
    say(f"enrolled from {actor.enrolled.num_frames} frames; {consent_line(actor.consent)}")
    say_result(actor.actor_id)
    if wants_json():
        say_json(document)


def run_erase(settings: GatewaySettings, actor_id: str, save: Path | None) -> None:
    """Erase a person, and print the signed receipt; with --json, the answer of the HTTP API, which has the receipt as a text.

    Args:
        save: new file for the receipt; None: the receipt is only printed.

    Raises:
        ActorError: there is no such actor.
        InvalidRequestError: the file of the receipt exists or cannot be written.
        DubstageError: the erasure failed.
    """
    from gateway.batch.erasure import other_stores
    from gateway.tenants.register import announce_tenant

    if save is not None:
        check_new_file(save)
    with open_installation(settings) as installation:
        erasures, others = installation.actors.erasures, other_stores(installation.actors.database)
        receipt = erasures.erase_or_ask(actor_id, others, announce=partial(announce_tenant, settings))
        key = erasures.signing_key() if wants_json() else None
    if key is not None:
        from gateway.cli.documents import receipt_document

        say_json(receipt_document(receipt, key.public_pem if key.id == receipt.key else ""))
    else:
        out.print_json(receipt.to_json())
    if save is not None:
        write_new_file(save, f"{receipt.to_json()}\n".encode())
        say(f"saved as {save}; `dubstage receipt verify {save}` checks it")


@commands.command("create")
def create(
    actor_id: Annotated[
        str, typer.Argument(metavar="ACTOR", help="Id of the new actor: lower-case letters, digits and inner dashes, at most 63.")
    ],
    videos: Annotated[
        list[Path],
        typer.Argument(
            metavar="VIDEO...",
            help="Footage of the person, in one or several files. Ten seconds are enough; up to five minutes are used. A single "
            f"picture is enough for these methods: {options.STILL_METHODS}.",
        ),
    ],
    method: Annotated[
        str | None,
        typer.Option(
            metavar=options.METHOD_VALUES,
            help="Method to enrol the person for. Videos of the person are dubbed with this method. Default: "
            f"{DEFAULT_METHOD}, or {STILL_METHOD} for a single picture.",
        ),
    ] = None,
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    face: options.Face = "auto",
    consent: options.ConsentFile = None,
    project: options.Project = "",
    stages: options.Stages = None,
    device: options.Device = None,
    personalize: options.Personalize = True,
    seed: options.Seed = 0,
    _: options.AsJson = False,
) -> None:
    """Enrol a person from one or several VIDEO files as ACTOR."""
    from gateway.actors.create import EnrolRequest
    from gateway.dub.analyse.face_choice import parse_face
    from gateway.dub.request.dub_request import default_method

    settings = options.gateway_settings(stages, device)
    request = EnrolRequest(
        actor_id=actor_id,
        footage=videos[0],
        more_footage=tuple(videos[1:]),
        method=combined(method or default_method(str(videos[0]), videos[0]), motion, renderer),
        face=parse_face(face),
        consent=options.consent_record(consent),
        project=options.consent_use(project, None).project,
        options=options.enrol_options(personalize=personalize, seed=seed),
        threads=settings.compute_threads,
    )
    run_async(run_create(settings, request))


@commands.command("list")
def list_actors(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="NUMBER", help="Most actors to show.")] = 500,
    after: Annotated[
        str, typer.Option(metavar="ACTOR", help="Begin behind this id, such as the last of an earlier list.", show_default=False)
    ] = "",
    _: options.AsJson = False,
) -> None:
    """List actors in the order of their ids."""
    with open_installation(options.gateway_settings()) as installation:
        stored = installation.actors.list(after=after, limit=limit + 1)
        actors = stored[:limit]
        if wants_json():
            from gateway.cli.documents import actor_documents

            more = actors[-1].actor_id if len(stored) > limit else ""
            say_json({"actors": actor_documents(installation.actors, actors), "nextPageToken": more})
            return
    table = Table("actor", "method", "enrolled", "frames", "consent", box=None)
    for actor in actors:
        frames = "?" if actor.num_frames is None else str(actor.num_frames)
        refused = " - refused" if actor.consent_problem else ""
        consent = "damaged" if actor.damage else printable(consent_line(actor.consent) + refused)
        table.add_row(actor.actor_id, actor.method, actor.created_at, frames, consent)
    say_table(table)
    for actor in actors:
        if actor.damage:
            say_warning(actor.damage)
    if len(stored) > limit:
        say(f"more actors follow: dubstage actor list --after {actors[-1].actor_id}")


@commands.command("show")
def show(
    actor_id: Annotated[str, typer.Argument(metavar="ACTOR", help="Id of the actor to show.")], _: options.AsJson = False
) -> None:
    """Print one actor as JSON. With --json, the fields have the names of the HTTP API."""
    with open_installation(options.gateway_settings()) as installation:
        actor = installation.actors.show(actor_id)
        if wants_json():
            from gateway.cli.documents import actor_documents

            say_json(actor_documents(installation.actors, [actor])[0])
            return
    out.print_json(json.dumps(_facts(actor)))
    for problem in filter(None, (actor.damage, actor.consent_problem)):
        say_warning(problem)


@commands.command("erase")
def erase(
    actor_id: Annotated[str, typer.Argument(metavar="ACTOR", help="Id of the actor to erase.")],
    save: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RECEIPT.json", help="New file for the receipt.", show_default=False)
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Erase a person and everything that was made from the person's footage, and print the signed receipt.

    Live streams and dubs of this person end. If a gateway uses the same database, the gateway does the erasing. All stores are
    looked through afterwards. If something is left, the command fails and says what and where.
    """
    run_erase(options.gateway_settings(), check_actor_id(actor_id), save)


def _facts(actor: ActorSummary) -> dict[str, object]:
    facts: dict[str, object] = {
        "actor_id": actor.actor_id,
        "method": actor.method,
        "created_at": actor.created_at,
        "footage_sha256": actor.footage_sha256,
        "enrolled_frames": actor.num_frames,
        "lag_frames": actor.lag_frames,
        "consent": actor.consent.fields() if actor.consent else None,
        "consent_sha256": digest_of(actor.consent) if actor.consent else None,
        "consent_problem": actor.consent_problem,
        # Superseded artefacts are not used any more. They are kept in the database so that `erase` removes them with the person.
        "artefacts": {kind: asdict(ref) for kind, ref in actor.artefacts.items() if not kind.startswith(SUPERSEDED)},
    }
    return facts | {"damage": in_words(actor.damage, COMMAND_LINE)} if actor.damage else facts
