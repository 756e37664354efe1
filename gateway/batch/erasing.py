"""An erased person leaves the pictures of batches too."""

from __future__ import annotations

from gateway.batch.store import BatchStore, open_batches
from gateway.settings import GatewaySettings


def forget_in_batches(settings: GatewaySettings, actor_id: str) -> int:
    """Do what `forget_actor` does in the store of batches that the settings name."""
    return forget_actor(open_batches(settings), actor_id)


def forget_actor(store: BatchStore, actor_id: str) -> int:
    """Remove the pictures of all shots of an actor, in every batch of a store, and return their number.

    Rows and records stay: they hold the actor's id, paths and figures, and nothing of the person's footage. The films belong to
    whoever ordered the shots.

    Args:
        store: the store of batches.
        actor_id: id of the erased person.

    Raises:
        StorageRefused: the store refuses.
        BackendUnavailable: the store does not answer.
        ArtefactCorrupt: a file of a batch is damaged.
    """
    removed = 0
    for name in store.names():
        removed += store.remove_thumbnails(name, [shot.id for shot in store.manifest(name) if shot.actor == actor_id])
    return removed
