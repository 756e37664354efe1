"""The enrolment that `dubstage actor create` runs, and the erasure that `dubstage actor erase` runs."""

from __future__ import annotations

from pathlib import Path

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.installation import open_installation
from gateway.batch.removal import batch_pictures
from gateway.cli.console import out, say, say_result, say_warning
from gateway.cli.new_file import check_new_file, write_new_file
from gateway.cli.progress import StepProgress
from gateway.consent.record import consent_line
from gateway.housekeeping.jobs import open_jobs_folder
from gateway.settings import GatewaySettings


async def run_create(settings: GatewaySettings, request: EnrolRequest) -> None:
    """Enrol a person, and print the number of frames, the consent record and the id.

    Raises:
        DubstageError: the request was refused, or the enrolment failed.
    """
    jobs = open_jobs_folder(settings.data_dir)
    with open_installation(settings) as place, StepProgress() as progress:
        # Before the stages are opened, which takes seconds.
        place.actors.consents.check_enrolment(request.consent, request.use, request.actor_id)
        async with place.stages() as stages:
            actor = await create_actor(
                request,
                stages,
                place.actors,
                place.artefacts,
                jobs,
                on_progress=progress,
                max_bytes=settings.max_job_bytes,
            )
    for warning in actor.warnings:
        say_warning(warning)
    say(f"enrolled from {actor.enrolled.num_frames} frames; {consent_line(actor.consent)}")
    say_result(actor.actor_id)


def run_erase(settings: GatewaySettings, actor_id: str, save: Path | None) -> None:
    """Erase a person, and print the signed receipt.

    Args:
        settings: settings of the command.
        actor_id: id of the person.
        save: new file for the receipt; None: the receipt is only printed.

    Raises:
        ActorNotReady: there is no such actor.
        InvalidRequest: the file of the receipt exists or cannot be written.
        DubstageError: the erasure failed.
    """
    if save is not None:
        check_new_file(save)
    with open_installation(settings) as place:
        receipt = place.actors.erasures.erase_or_ask(actor_id, [batch_pictures(settings)])
    out.print_json(receipt.to_json())
    if save is not None:
        write_new_file(save, f"{receipt.to_json()}\n".encode())
        say(f"saved as {save}; `dubstage receipt verify {save}` checks it")
