"""`dubstage actor`: enrol, show, list and erase people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.store import ActorStore, check_actor_id
from gateway.actors.stored import SUPERSEDED, ActorSummary
from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import out, say, say_result, say_warning
from gateway.cli.progress import StepProgress
from gateway.cli.text import printable
from gateway.consent import consent_line, read_consent
from gateway.housekeeping.jobs_folder import open_jobs_folder
from gateway.methods import combined
from gateway.pipeline.enrol import EnrolOptions
from gateway.pipeline.faces import parse_face
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stages
from services.common.artefacts import ArtefactStore
from services.common.settings import load_settings

commands = typer.Typer(no_args_is_help=True, help="People who are enrolled.")
app.add_typer(commands, name="actor")


@commands.command("create")
def create(
    actor_id: Annotated[
        str, typer.Argument(metavar="ACTOR", help="Id of the new actor: lower-case letters, digits and inner dashes, at most 63.")
    ],
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO", help="Footage of the person, ten seconds are enough; for the method headpose a picture too."
        ),
    ],
    method: Annotated[str, typer.Option(metavar=options.METHOD_VALUES, help="Method that the person will be dubbed with.")] = "ugc",
    motion: options.Motion = None,
    renderer: options.Renderer = None,
    face: options.Face = "largest",
    consent: options.ConsentFile = None,
    stages: options.Stages = None,
    personalize: options.Personalize = True,
    seed: options.Seed = 0,
) -> None:
    """Enrol a person from VIDEO under ACTOR_ID."""
    settings = load_settings(GatewaySettings, stages_host=stages)
    request = EnrolRequest(
        actor_id=actor_id,
        footage=video,
        method=combined(method, motion, renderer),
        face=parse_face(face),
        consent=read_consent(consent) if consent is not None else None,
        options=EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize, seed=seed),
        threads=settings.compute_threads,
    )
    run_async(_create(settings, request))


async def _create(settings: GatewaySettings, request: EnrolRequest) -> None:
    jobs = open_jobs_folder(settings.data_dir)
    artefacts = ArtefactStore(settings.artefacts_url)
    with ActorStore(settings) as actors, StepProgress() as progress:
        async with open_stages(settings) as stages:
            actor = await create_actor(
                request,
                stages,
                actors,
                artefacts,
                jobs,
                require_consent=settings.require_consent,
                on_progress=progress,
                max_bytes=settings.max_job_bytes,
            )
    say(f"learned from {actor.enrolled.num_frames} frames; {consent_line(actor.consent)}")
    say_result(actor.actor_id)


@commands.command("list")
def list_actors() -> None:
    """List all actors."""
    with ActorStore(load_settings(GatewaySettings)) as store:
        actors: list[ActorSummary] = []
        while page := store.list(after=actors[-1].actor_id if actors else "", limit=1000):
            actors.extend(page)
    table = Table("actor", "method", "enrolled", "frames", "consent", box=None)
    for actor in actors:
        frames = "?" if actor.num_frames is None else str(actor.num_frames)
        consent = "damaged" if actor.damage else printable(consent_line(actor.consent))
        table.add_row(actor.actor_id, actor.method, actor.created_at, frames, consent)
    out.print(table)
    for actor in actors:
        if actor.damage:
            say_warning(actor.damage)


@commands.command("show")
def show(actor_id: Annotated[str, typer.Argument(metavar="ACTOR", help="Id of the actor to show.")]) -> None:
    """Show one actor, as JSON."""
    with ActorStore(load_settings(GatewaySettings)) as store:
        actor = store.show(actor_id)
    out.print_json(json.dumps(_facts(actor)))
    if actor.damage:
        say_warning(actor.damage)


@commands.command("erase")
def erase(actor_id: Annotated[str, typer.Argument(metavar="ACTOR", help="Id of the actor to erase.")]) -> None:
    """Erase a person and everything that was made from their footage; print the signed receipt.

    Live streams and dubs with this person end. Where a gateway works with the same database, the gateway erases.
    """
    with ActorStore(load_settings(GatewaySettings)) as store:
        receipt = store.erasures.erase_or_ask(check_actor_id(actor_id))
    out.print_json(receipt.to_json())


def _facts(actor: ActorSummary) -> dict[str, object]:
    facts = {
        "actor_id": actor.actor_id,
        "method": actor.method,
        "created_at": actor.created_at,
        "footage_sha256": actor.footage_sha256,
        "enrolled_frames": actor.num_frames,
        "lag_frames": actor.lag_frames,
        "consent": json.loads(actor.consent.model_dump_json()) if actor.consent else None,
        # Those that an enrolment made and replaced are kept to be erased with the person; nothing uses them.
        "artefacts": {kind: asdict(ref) for kind, ref in actor.artefacts.items() if not kind.startswith(SUPERSEDED)},
    }
    return facts | {"damage": actor.damage} if actor.damage else facts
