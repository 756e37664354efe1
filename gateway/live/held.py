"""Footage of actors that is kept in memory for their streams."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final
from weakref import WeakValueDictionary

from gateway.actors.stored import StoredActor
from gateway.live.performance import Performance, load_performance
from services.common.store.artefacts import ArtefactStore

HELD_PERFORMANCES: Final = 2
"""Actors whose decoded footage is kept for their next stream."""
MESSAGE_ROOM: Final = 4096
"""Bytes of a message without its picture."""


class HeldPerformances:
    """Decoded footage of the actors that are shown, and of those that were shown last.

    Args:
        artefacts: artefact store of the stages.
        max_message_bytes: size limit of a message, which has to hold one frame.
    """

    def __init__(self, artefacts: ArtefactStore, max_message_bytes: int) -> None:
        self._artefacts, self._max_message_bytes = artefacts, max_message_bytes
        self._held: OrderedDict[str, Performance] = OrderedDict()
        # Streams of one actor share one footage.
        self._shown: WeakValueDictionary[str, Performance] = WeakValueDictionary()
        self._times_cleared = 0

    def clear(self) -> None:
        """Remove all footage from memory, except that of running streams."""
        self._times_cleared += 1
        self._held.clear()
        self._shown.clear()

    async def of(self, actor: StoredActor) -> Performance:
        """Return the footage of an actor who was read from the store just now.

        Raises:
            ActorNotReady: the footage cannot be shown, or its pictures are larger than a message.
        """
        # The key is a digest of the enrolment, because an actor that was erased and enrolled again is another person's footage.
        # The actor was read from the store before, so footage of an erased actor is never shown from memory.
        key = actor.artefacts["enrolment"].sha256
        found = self._held.pop(key, None) or self._shown.get(key)
        times_cleared = self._times_cleared
        if found is None:
            max_picture_bytes = self._max_message_bytes - MESSAGE_ROOM
            found = await asyncio.to_thread(load_performance, actor, self._artefacts, max_picture_bytes)
        if times_cleared != self._times_cleared:
            # The actor may have been erased while the footage was decoded: only the caller gets the footage.
            return found
        self._held[key] = self._shown[key] = found
        while len(self._held) > HELD_PERFORMANCES:
            self._held.popitem(last=False)
        return found
