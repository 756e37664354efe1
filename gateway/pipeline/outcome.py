"""What came of a dub, and what the user must be told about the dub."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.media.types import MediaInfo
from gateway.media.writer import WriteReport
from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.film import FilmFacts
from gateway.pipeline.journal import Journal
from gateway.pipeline.plan import Plan
from gateway.pipeline.speech import SpeechExtent
from gateway.pipeline.workspace import Workspace
from gateway.reports.stage_times import StageTimes


@dataclass(slots=True)
class DubOutcome:
    """What came of a dub.

    Attributes:
        written: the film.
        info: the footage.
        film: what was dubbed in place: the footage, or the background film of a dub with a timeline of its own.
        plan: what happens to each frame of the film.
        actor: the actor that was used; None where there is no face.
        face_id: the face whose mouth was dubbed; None where there is no face.
        facts: what the last pass saw.
        windows_computed, windows_reused: windows of this run, and those that an earlier run had finished.
        times: seconds that each stage took.
        warnings: what the user must be told.
    """

    written: WriteReport
    info: MediaInfo
    film: MediaInfo
    plan: Plan
    actor: EnrolledActor | None
    face_id: int | None
    facts: FilmFacts
    windows_computed: int
    windows_reused: int
    times: StageTimes
    warnings: list[str] = field(default_factory=list)


def about_speech(extent: SpeechExtent, info: MediaInfo) -> list[str]:
    """Warnings about speech that is longer or shorter than the footage."""
    film = float(info.video.duration)
    if extent.longer:
        return [f"the speech is longer than the footage ({film:.2f} s): it is cut there"]
    if extent.used_s < film - 0.1:
        return [f"the speech ends at {extent.used_s:.2f} s of {film:.2f} s: the mouth stays shut after that"]
    return []


def about_damage(facts: FilmFacts) -> list[str]:
    """Warnings about frames of the footage that the decoder had to fill in."""
    if not facts.damaged:
        return []
    return [f"damaged frames in the footage, filled in by the decoder: {len(facts.damaged)}, the first is frame {facts.damaged[0]}"]


def about_redone(workspace: Workspace, journal: Journal) -> list[str]:
    """Warnings about work of an earlier run that had to be done again."""
    if not journal.redone:
        return workspace.redone
    return [
        *workspace.redone,
        f"{journal.redone} finished steps of an earlier run could not be used (gone, damaged, or in another artefact store): they "
        "were made anew",
    ]
