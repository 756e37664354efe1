"""`dubstage actor`: enrol, show, list and erase people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.store import ActorStore, StoredActor
from gateway.cli.app import app, run_async
from gateway.cli.console import StepProgress, err, out
from gateway.consent import consent_line, read_consent
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
    actor_id: Annotated[str, typer.Argument(help="lower-case letters, digits and dashes")],
    video: Annotated[Path, typer.Argument(help="footage of the person, ten seconds are enough; for headpose a still picture does")],
    method: Annotated[str, typer.Option(help="how they will be dubbed")] = "ugc",
    motion: Annotated[str | None, typer.Option(help="another method's motion predictor")] = None,
    renderer: Annotated[str | None, typer.Option(help="another method's renderer")] = None,
    face: Annotated[str, typer.Option(help="largest, speaker, a face id, or X,Y in the first frame")] = "largest",
    consent: Annotated[Path | None, typer.Option(help="JSON file with the consent record")] = None,
    stages: Annotated[str | None, typer.Option(help="host of running stages; without it, all in this process")] = None,
    personalize: Annotated[bool, typer.Option(help="adapt the networks to the person")] = True,
    seed: Annotated[int, typer.Option(help="of the adaptation")] = 0,
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
    artefacts = ArtefactStore(settings.artefacts_url)
    with ActorStore(settings) as actors, StepProgress() as progress:
        async with open_stages(settings) as stages:
            actor = await create_actor(
                request,
                stages,
                actors,
                artefacts,
                settings.data_dir / "jobs",
                require_consent=settings.require_consent,
                on_progress=progress,
            )
    err.print(f"learned from {actor.enrolled.num_frames} frames; {consent_line(actor.consent)}")
    out.print(actor.actor_id)


@commands.command("list")
def list_actors() -> None:
    """All actors."""
    with ActorStore(load_settings(GatewaySettings)) as store:
        actors = store.list(limit=1000)
    table = Table("actor", "method", "enrolled", "frames", "consent", box=None)
    for actor in actors:
        table.add_row(actor.actor_id, actor.method, actor.created_at, str(actor.enrolled.num_frames), consent_line(actor.consent))
    out.print(table)


@commands.command("show")
def show(actor_id: str) -> None:
    """One actor, as JSON."""
    with ActorStore(load_settings(GatewaySettings)) as store:
        out.print_json(json.dumps(_facts(store.get(actor_id))))


@commands.command("erase")
def erase(actor_id: str) -> None:
    """Erase a person and everything that was made from their footage; prints the signed receipt."""
    with ActorStore(load_settings(GatewaySettings)) as store:
        out.print_json(json.dumps(asdict(store.erase(actor_id))))


def _facts(actor: StoredActor) -> dict[str, object]:
    return {
        "actor_id": actor.actor_id,
        "method": actor.method,
        "created_at": actor.created_at,
        "footage_sha256": actor.footage_sha256,
        "enrolled_frames": actor.enrolled.num_frames,
        "lag_frames": actor.enrolled.lag_frames,
        "consent": json.loads(actor.consent.model_dump_json()) if actor.consent else None,
        "artefacts": {kind: asdict(ref) for kind, ref in actor.artefacts.items()},
    }
