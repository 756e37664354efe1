"""Signals that end a command: the work of the command is cancelled and can clean up."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.cli.app import run_async
from services.common.errors import Cancelled


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_command_which_cleans_up(number: signal.Signals) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            cleaned.append("partial file")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Cancelled, match="interrupted"):
            run_async(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert cleaned == ["partial file"]


def test_work_that_cancels_itself_is_not_reported_as_interrupted() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_async(work())
