"""What the film of a live stream says of the actor that it shows: its comment, and its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from gateway.actors.stored import StoredActor
from gateway.consent.record import Consent, consent_line, digest_of
from gateway.dub.claim import model_facts
from gateway.media.marking import MARK
from gateway.methods import method_named
from gateway.provenance.claim import Claim, Source
from gateway.provenance.facts import ModelFacts
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for
from services.common.wire.timeline import MOTION_RATE

_SYNTHETIC: Final = "The mouth in this film is synthetic"


@dataclass(frozen=True, slots=True)
class ShownActor:
    """What a film says of the actor that it shows.

    Attributes:
        method: name of the method that the actor is enrolled for.
        models: models of the method; empty: they are not known, because a gateway ran the stages.
        consent: consent record of the actor; None: there is none.
    """

    method: str
    models: tuple[ModelFacts, ...]
    consent: Consent | None

    @property
    def marking(self) -> str:
        """Text for the comment tag of the film."""
        return f"{_SYNTHETIC} ({MARK}); {consent_line(self.consent)}"

    def claim(self, speech: Path, num_frames: int) -> Claim:
        """Return what the manifest of the film says. The mouth is synthetic in every frame.

        Args:
            speech: file of the speech.
            num_frames: frames of the film.
        """
        return Claim(
            version=version("dubstage-suite"),
            description=f"{_SYNTHETIC}.",
            synthetic=True,
            method=self.method,
            models=self.models,
            num_frames=num_frames,
            frame_rate=MOTION_RATE,
            dubbed=(range(num_frames),) if num_frames else (),
            consents={"person": digest_of(self.consent)} if self.consent is not None else {},
            sources=(Source("speech", speech),),
        )


async def shown_actor(actor: StoredActor, stages: Stages) -> ShownActor:
    """Return what a film says of an actor whose stages run in this process, or are called by this process.

    Raises:
        ModelNotFound: the stages do not have the actor's method.
        DubstageError: from the stages.
    """
    method = method_named(actor.method).streamed
    return ShownActor(method.name, model_facts(method, await models_for(stages, method)), actor.consent)
