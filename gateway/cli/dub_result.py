"""Report and summary of a dub after the film is finished."""

from __future__ import annotations

from pathlib import Path

import typer

from gateway.cli.console import say, say_error, say_result, say_warning
from gateway.cli.quantities import sound_against_picture
from gateway.dub.outcome import DubOutcome
from gateway.dub.request import DubRequest, consents
from gateway.dub.workspace import Workspace
from gateway.stages.interface import Stages
from services.common.errors import UNDUBBED_EXIT_CODE, DubstageError
from services.common.store.artefacts import ArtefactStore


async def save_report(
    request: DubRequest, outcome: DubOutcome, workspace: Workspace, stages: Stages, artefacts: ArtefactStore, folder: Path
) -> None:
    """Write the report of a dub to a folder. If that fails, print that the film was written nevertheless.

    Args:
        request: the dub request.
        outcome: its result.
        workspace: the open folder of the job, which has the records.
        stages: the stages.
        artefacts: artefact store of the stages.
        folder: folder of the report.

    Raises:
        DubstageError: the report cannot be written.
    """
    from gateway.reports.from_outcome import write_report

    try:
        await write_report(request, outcome, workspace, stages, artefacts, folder)
    except DubstageError:
        say(f"the film was written to {request.output}, but the report was not written")
        raise


def show_outcome(request: DubRequest, outcome: DubOutcome, report: Path | None) -> None:
    """Print warnings, counts of frames and the consent record to stderr, and the paths of film and report to stdout.

    Raises:
        typer.Exit: no frame is dubbed, so that the command ends with an exit code of its own.
    """
    for warning in outcome.warnings:
        say_warning(warning)
    counts = outcome.plan.counts()
    dubbed = int(outcome.plan.rendered().sum())
    frames = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    say(f"{dubbed} of {outcome.plan.num_frames} frames dubbed ({frames})")
    if outcome.actor is not None and outcome.actor.lag_frames:
        say(sound_against_picture(outcome.actor.lag_frames))
    if outcome.windows_reused:
        say(f"{outcome.windows_reused} windows taken from an earlier run, {outcome.windows_computed} windows computed")
    for dropped in outcome.written.dropped:
        say_warning(dropped)
    say(consents(request))
    say_result(str(request.output))
    if report is not None:
        say_result(str(report / "index.html"))
    if outcome.undubbed:
        say_error(outcome.undubbed)
        raise typer.Exit(UNDUBBED_EXIT_CODE)
