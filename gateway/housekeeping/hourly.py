"""Chores that a gateway does once an hour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.ahead import in_thread
from services.common.errors import DubstageError

HOUR_S: Final = 3600.0

_log = structlog.stdlib.get_logger("dubstage.chores")


async def hourly(*chores: Callable[[], object]) -> None:
    """Do chores one after the other, now and once per hour, until cancelled.

    A chore that fails, for whatever reason, is logged, and is tried again an hour later.

    Args:
        chores: functions that block.
    """
    while True:
        for chore in chores:
            try:
                await in_thread(chore)
            except (DubstageError, OSError) as problem:
                _log.warning("chore_failed", problem=str(problem))
            except Exception:
                # Without this, a bug would end all chores for as long as the gateway runs, and the disk would fill.
                _log.exception("chore_failed")
        await asyncio.sleep(HOUR_S)
