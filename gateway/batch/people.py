"""The people of the rows of a manifest: their actors, and their consent."""

from __future__ import annotations

from gateway.actors.store import ActorStore
from gateway.actors.stored import ActorSummary
from gateway.batch.consent_places import consent_at
from gateway.batch.types import Shot
from gateway.consent.record import Consent
from gateway.consent.use import use_of
from gateway.methods import DEFAULT_METHOD, combined
from services.common.consent_errors import ConsentRefused
from services.common.errors import ActorNotReady, ArtefactNotFound, InvalidRequest

ConsentQuestion = tuple[str | None, str | None, str | None, str | None]
"""Consent file, actor, project and language of a shot. Shots with the same four have the same answer."""


class People:
    """Looks up the actors and the consent records of shots, each once. All methods block.

    Args:
        actors: the enrolled people.
    """

    def __init__(self, actors: ActorStore) -> None:
        self._actors = actors
        self._found: dict[str, ActorSummary | ActorNotReady] = {}
        self._asked: dict[ConsentQuestion, ConsentRefused | InvalidRequest | None] = {}

    def method_of(self, shot: Shot) -> str:
        """Return the method that dubs a shot.

        Raises:
            ActorNotReady: there is no such actor, or the actor is damaged.
            ConsentRefused: a consent record does not allow the shot, or is missing and the installation requires one.
            InvalidRequest: the actor was enrolled for another method, or project or language are not allowed.
            StorageRefused, BackendUnavailable: the store of a record's URL refuses, or does not answer.
        """
        actor = self._actor(shot.actor) if shot.actor is not None else None
        self._check_consent(shot, actor)
        if actor is None:
            return shot.method or DEFAULT_METHOD
        if shot.method is not None and combined(shot.method) != actor.method:
            raise InvalidRequest(
                f"actor {actor.actor_id} is enrolled for {actor.method}, not for {shot.method}: leave method out, or enrol the "
                f"person for {shot.method} under another id",
                field="method",
            )
        return actor.method

    def _check_consent(self, shot: Shot, actor: ActorSummary | None) -> None:
        asked = (shot.consent, shot.actor, shot.project, shot.language)
        if asked not in self._asked:
            try:
                self._ask(shot, actor)
                self._asked[asked] = None
            except (ConsentRefused, InvalidRequest) as refusal:
                self._asked[asked] = refusal
        answer = self._asked[asked]
        if answer is not None:
            raise answer

    def _ask(self, shot: Shot, actor: ActorSummary | None) -> None:
        use = use_of(shot.project or "", shot.language or "")
        consents = self._actors.consents
        record = _readable(shot.consent) if shot.consent is not None else None
        if shot.consent is None or record is not None:
            own, actor_id = (actor.consent, actor.actor_id) if actor is not None else (None, "")
            consents.check_enrolled(own, record, use, shot.id, actor_id=actor_id)

    def _actor(self, actor_id: str) -> ActorSummary:
        if actor_id not in self._found:
            try:
                found = self._actors.show(actor_id)
                self._found[actor_id] = ActorNotReady(found.damage, subject=actor_id) if found.damage else found
            except ActorNotReady as missing:
                self._found[actor_id] = missing
        answer = self._found[actor_id]
        if isinstance(answer, ActorNotReady):
            raise answer
        return answer


def _readable(place: str) -> Consent | None:
    """Return the record of a file; None: the file cannot be used, which the check of the files tells."""
    try:
        return consent_at(place)
    except (InvalidRequest, ArtefactNotFound):
        return None
