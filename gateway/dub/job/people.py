"""People that are learned from analysed footage: each once per job. Jobs take over people whom a dub of the footage has learned."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass

from gateway.async_utilities import in_thread
from gateway.dub.choices import EnrolOptions
from gateway.dub.job.kept_analysis import KeptAnalysis
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.enrol import EnrolledActor, actor_arrays, actor_from_arrays
from gateway.dub.progress import OnProgress
from gateway.dub.state.journal import Journal, step_key
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.convert import ref_from_proto


@dataclass(frozen=True, kw_only=True, slots=True)
class PeopleOfFootage:
    """People of one footage: finds those who were learned before, and learns the others.

    Attributes:
        analysis: the footage, tracked, with the selected face.
        kept: the analysis as other jobs find it.
        journal: finished steps of the job.
        key: key of what is learned of people of the footage (`people_key`).
        store: artefacts of the journal.
        hold: counts an artefact for the job, and returns whether it is there; blocks.
        on_progress: called with every step.
    """

    analysis: FootageAnalysis
    kept: KeptAnalysis
    journal: Journal
    key: str
    store: ArtefactStore
    hold: Callable[[ArtefactRef], bool]
    on_progress: OnProgress

    async def find_actor(self, options: EnrolOptions) -> EnrolledActor | None:
        """Return the selected person as this job or a dub of the footage has learned the person; None: neither has."""
        step = self._step(options)
        actor = await asyncio.to_thread(self.journal.find, step, self._journalled)
        if actor is not None:
            return actor
        actor = await self.kept.find_actor(step, self._journalled)
        if actor is not None:
            await in_thread(self.journal.record, step, *actor_arrays(actor))
        return actor

    async def learn(self, options: EnrolOptions) -> EnrolledActor:
        """Learn the selected person, and keep the person for this job.

        Raises:
            NoUsableFootageError: too few frames show the face.
            DubstageError: from the stages.
        """
        step = self._step(options)
        actor = await self.analysis.enrol(
            options,
            lambda name, done, total: self.on_progress(f"enrol {name}", done, total),
            on_artefact=lambda ref: in_thread(self.hold, ref_from_proto(ref, "artefact")),
        )
        await in_thread(self.journal.record, step, *actor_arrays(actor))
        return actor

    async def share(self, options: EnrolOptions, actor: EnrolledActor) -> None:
        """Keep the learned person in the analysis that other jobs share.

        Enrolments do not call this method: an erasure could not find a person whose actor is not stored yet.
        """
        trained_for = self.analysis.method.name if options.trains else ""
        await self.kept.keep_actor(self._step(options), actor, trained_for=trained_for)

    def _step(self, options: EnrolOptions) -> str:
        analysis = self.analysis
        return step_key(
            "enrol",
            people=self.key,
            face=[analysis.face_id, *analysis.tracked_ids],
            rows=hashlib.sha256(analysis.rows.tobytes()).hexdigest(),
            enrol=astuple(options),
        )

    def _journalled(self, stored: NamedArrays) -> EnrolledActor:
        """Return the actor that a journal's arrays hold.

        Raises:
            ValueError, ArtefactNotFoundError, ArtefactCorruptError, InvalidRequestError: the arrays hold no actor, or an artefact
                of the actor cannot be used.
        """
        actor = actor_from_arrays(stored)
        for ref in actor.refs.values():
            self.store.check(ref_from_proto(ref, "artefact"))
        return actor
