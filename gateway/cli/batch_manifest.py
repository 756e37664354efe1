"""The manifest of `dubstage batch`, checked with the files and the actors that its rows name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.actors.store import ActorStore
from gateway.actors.stored import ActorSummary
from gateway.batch.manifest import Manifest, manifest_or_mistakes
from gateway.batch.types import Shot
from gateway.cli.console import say
from gateway.methods import DEFAULT_METHOD, combined
from gateway.settings import GatewaySettings
from services.common.errors import ActorNotReady, ConsentMissing, InvalidRequest

SHOWN_MISTAKES: Final = 50
"""Most mistakes of a manifest that are printed."""


def checked_manifest(settings: GatewaySettings, path: Path, name: str | None, *, check: bool) -> Manifest:
    """Read and check a manifest. If rows have mistakes, print them, at most `SHOWN_MISTAKES`.

    Args:
        settings: settings of the command.
        path: file of the manifest.
        name: name of the batch; None: made from the name of the file.
        check: whether to look for the files and the actors of the rows.

    Raises:
        InvalidRequest: the manifest is wrong. The message says how many mistakes there are.
        StorageRefused, BackendUnavailable: the database of actors, or the store of a URL, cannot be used.
    """
    if check:
        with ActorStore(settings) as actors:
            found = manifest_or_mistakes(path, name=name, method_of=_People(settings, actors).method_of)
    else:
        found = manifest_or_mistakes(path, name=name, check_files=False)
    if isinstance(found, Manifest):
        return found
    if len(found) == 1:
        raise InvalidRequest(found[0], field="manifest")
    for mistake in found[:SHOWN_MISTAKES]:
        say(mistake)
    hidden = len(found) - SHOWN_MISTAKES
    more = f", {hidden} of them not shown" if hidden > 0 else ""
    raise InvalidRequest(f"{path}: {len(found)} mistakes{more}; nothing was started", field="manifest")


class _People:
    """Looks up the actors of shots, each once."""

    def __init__(self, settings: GatewaySettings, actors: ActorStore) -> None:
        self._settings, self._actors = settings, actors
        self._found: dict[str, ActorSummary | ActorNotReady] = {}

    def method_of(self, shot: Shot) -> str:
        """Return the method that dubs a shot.

        Raises:
            ActorNotReady: there is no such actor, or the actor is damaged.
            ConsentMissing: the installation requires a consent record, and there is none.
            InvalidRequest: the actor was enrolled for another method.
        """
        actor = self._actor(shot.actor) if shot.actor is not None else None
        if shot.consent is None and (actor is None or actor.consent is None) and self._settings.require_consent:
            raise ConsentMissing("this installation requires a consent record: name its file as consent", subject=shot.id)
        if actor is None:
            return shot.method or DEFAULT_METHOD
        if shot.method is not None and combined(shot.method) != actor.method:
            raise InvalidRequest(
                f"actor {actor.actor_id} is enrolled for {actor.method}, not for {shot.method}: leave method out, or enrol the "
                f"person for {shot.method} under another id",
                field="method",
            )
        return actor.method

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
