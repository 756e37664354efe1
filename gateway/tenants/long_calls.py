"""How the calls of one gateway are shared: how many one tenant may have, and how many of them may wait or watch for long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.common.errors import OverloadedError
from services.common.server.call_context import current_caller

TENANT_SHARE: Final = 0.75
"""Part of a gateway's calls that one tenant may have, so that other tenants always find room."""
LONG_SHARE: Final = 0.5
"""Part of a gateway's calls that may be long calls, of all tenants together."""
LONG_TENANT_SHARE: Final = 0.25
"""Part of a gateway's calls that may be long calls of one tenant."""
_RETRY_S: Final = 5.0


def most_calls_of_tenant(max_calls: int) -> int:
    """Return the number of calls that one tenant may have at once.

    Args:
        max_calls: most calls that the gateway serves at once.
    """
    return _share(max_calls, TENANT_SHARE)


class LongCalls:
    """The long calls of all tenants of one gateway: calls that wait, watch, copy or send for long.

    Used from one event loop.

    Args:
        max_calls: most calls that the gateway serves at once.
    """

    def __init__(self, max_calls: int) -> None:
        self._most = _share(max_calls, LONG_SHARE)
        self._most_of_tenant = _share(max_calls, LONG_TENANT_SHARE)
        self._present: Counter[str] = Counter()

    def has_room(self) -> bool:
        """Return whether a further long call of the current caller's tenant may begin now."""
        tenant = current_caller().tenant
        return self._present[tenant] < self._most_of_tenant and self._present.total() < self._most

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count a long call of the current caller's tenant while the block runs.

        Raises:
            OverloadedError: no further long call of the tenant may begin now.
        """
        if not self.has_room():
            raise OverloadedError(
                f"a gateway takes {self._most_of_tenant} calls of one tenant that wait, watch, estimate or send reports, and "
                f"{self._most} of all tenants together: try again later",
                retry_after_s=_RETRY_S,
            )
        tenant = current_caller().tenant
        self._present[tenant] += 1
        try:
            yield
        finally:
            self._present[tenant] -= 1


def _share(max_calls: int, part: float) -> int:
    return max(1, int(max_calls * part))
