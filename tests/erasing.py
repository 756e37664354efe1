"""Erasures of people in the process of a test."""

from __future__ import annotations

from gateway.actors.receipts import ErasureReceipt
from gateway.actors.store import ActorStore
from gateway.batch.erasure import other_stores


def erase(actors: ActorStore, actor_id: str) -> ErasureReceipt:
    """Erase a person from all stores as the process that has the database for itself does, and return the receipt.

    Raises:
        DubstageError: as `Erasures.erase_or_ask`.
    """
    number = actors.erasures.ask(actor_id)
    try:
        receipt = actors.erasures.carry_out(actor_id, others=other_stores(actors.database))
        actors.erasures.received(number)
        return receipt
    finally:
        actors.erasures.withdraw(number)
