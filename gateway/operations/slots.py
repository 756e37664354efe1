"""Slots for operations that run at once in one process. Runners of several tenants may share them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class _User:
    running: Callable[[], int]
    wake: Callable[[], None]
    served: int = 0


class Slots:
    """Slots of one process. Used from one event loop.

    Attributes:
        turn: held by a runner while it takes operations, so that no two runners fill the same slot.

    Args:
        number: most operations that run at once.
    """

    def __init__(self, number: int) -> None:
        self.turn = asyncio.Lock()
        self._number = number
        self._users: list[_User] = []
        self._served = itertools.count(1)

    def join(self, running: Callable[[], int], wake: Callable[[], None]) -> Callable[[], None]:
        """Let a runner share the slots. Return what the runner calls when it has begun an operation.

        Args:
            running: returns how many slots the runner fills now.
            wake: lets the runner look for operations that wait.
        """
        user = _User(running, wake)
        self._users.append(user)

        def begun() -> None:
            user.served = next(self._served)

        return begun

    def leave(self, running: Callable[[], int]) -> None:
        """Share the slots no more with the runner that joined with this function."""
        self._users = [user for user in self._users if user.running != running]

    def free(self) -> int:
        """Return the number of operations that can begin now."""
        return max(0, self._number - sum(user.running() for user in self._users))

    def wake_all(self) -> None:
        """Let all runners look for operations that wait.

        The one with the fewest running operations comes first, and among equals the one that began an operation longest ago.
        """
        for user in sorted(self._users, key=lambda one: (one.running(), one.served)):
            user.wake()
