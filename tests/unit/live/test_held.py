"""Which footage stays in memory for the next stream."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.live import held
from gateway.live.held import HeldPerformances
from gateway.live.performance import Performance

NOTHING: Any = None
ANN: Any = SimpleNamespace(actor_id="ann", artefacts={"enrolment": SimpleNamespace(sha256="e" * 64)})


class Loading:
    """Decoding of footage that goes on until the test lets it end.

    Attributes:
        loads: number of times that footage was decoded.
        begun: set when the decoding begins.
        may_end: the test sets it.
    """

    def __init__(self) -> None:
        self.loads, self.begun, self.may_end = 0, threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> Performance:
        self.loads += 1
        self.begun.set()
        assert self.may_end.wait(60)
        return Performance((np.zeros((4, 4, 3), np.uint8),), NOTHING, NOTHING, NOTHING, NOTHING)


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    made = Loading()
    monkeypatch.setattr(held, "load_performance", made)
    return made


async def test_the_next_stream_of_an_actor_decodes_nothing(loading: Loading) -> None:
    loading.may_end.set()
    performances = HeldPerformances(NOTHING, 1 << 20)
    assert await performances.of(ANN) is await performances.of(ANN)
    assert loading.loads == 1


async def test_footage_of_an_actor_who_is_erased_while_it_is_decoded_does_not_stay_in_memory(loading: Loading) -> None:
    performances = HeldPerformances(NOTHING, 1 << 20)
    opening = asyncio.create_task(performances.of(ANN))
    assert await asyncio.to_thread(loading.begun.wait, 60)
    performances.clear()
    loading.may_end.set()
    await opening
    await performances.of(ANN)
    assert loading.loads == 2
