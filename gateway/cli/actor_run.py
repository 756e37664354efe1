"""The enrolment that `dubstage actor create` runs, and the erasure that `dubstage actor erase` runs."""

from __future__ import annotations

from gateway.actors.create import EnrolRequest, create_actor
from gateway.actors.workplace import open_workplace
from gateway.batch.erasing import forget_in_batches
from gateway.cli.console import out, say, say_result
from gateway.cli.progress import StepProgress
from gateway.consent.record import consent_line
from gateway.housekeeping.jobs_folder import open_jobs_folder
from gateway.settings import GatewaySettings


async def run_create(settings: GatewaySettings, request: EnrolRequest) -> None:
    """Enrol a person, and print the number of frames, the consent record and the id.

    Raises:
        DubstageError: the request was refused, or the enrolment failed.
    """
    jobs = open_jobs_folder(settings.data_dir)
    with open_workplace(settings) as place, StepProgress() as progress:
        # Before the stages are opened, which takes seconds.
        place.actors.consents.check(request.consent, request.use, request.actor_id)
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
    say(f"enrolled from {actor.enrolled.num_frames} frames; {consent_line(actor.consent)}")
    say_result(actor.actor_id)


def run_erase(settings: GatewaySettings, actor_id: str) -> None:
    """Erase a person, print the signed receipt, and remove the pictures of the person's shots from the store of batches.

    Raises:
        ActorNotReady: there is no such actor.
        DubstageError: the erasure failed, or the person is erased and the store of batches cannot be used.
    """
    with open_workplace(settings) as place:
        receipt = place.actors.erasures.erase_or_ask(actor_id)
    out.print_json(receipt.to_json())
    forget_in_batches(settings, actor_id)
