"""Callers of live streams: each speaks at the pace of speech, again and again, and writes down what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dubstage.client import Connection, DubstageCallError, connect
from dubstage.client import gateway as client

CHUNK_S = 0.04
SLOW_FRAME_S = 0.2
"""Seconds for which the slow reader looks at a frame: five times as long as a frame lasts."""
MAX_LATE_MS = 1000
BUSY = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Tenant:
    """A tenant of the load run.

    Attributes:
        token: the tenant's bearer token.
        callers: number of streams that the tenant wants at the same time.
    """

    name: str
    token: str
    callers: int


@dataclass
class Told:
    """Results of one caller.

    Attributes:
        tenant: whose caller.
        slow: whether the caller takes frames slowly.
        streams: streams that came to their end.
        refused: streams that were refused with RESOURCE_EXHAUSTED and a time to try again.
        frames: frames that came.
        left_out: frames that the gateway left out because they were late.
        latencies_s: seconds from the last sound of each frame to the frame.
        errors: every other error.
    """

    tenant: str
    slow: bool
    streams: int = 0
    refused: int = 0
    frames: int = 0
    left_out: int = 0
    latencies_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Caller(threading.Thread):
    """One caller. Every `seconds` of speech are one stream; a refused stream is tried again when the gateway said.

    Args:
        target: HOST:PORT of the gateway.
        tenant: whose caller.
        actor_id: who is shown.
        speech: float32 [n] and its rate, Hz.
        seconds: length of a stream.
        over: set when no further stream may begin.
        slow: whether the caller takes frames slowly.
    """

    def __init__(
        self,
        target: str,
        tenant: Tenant,
        actor_id: str,
        speech: tuple[npt.NDArray[np.float32], int],
        seconds: float,
        over: threading.Event,
        *,
        slow: bool,
    ) -> None:
        super().__init__(daemon=True)
        self.told = Told(tenant.name, slow)
        self._target, self._token, self._actor_id, self._over, self._slow = target, tenant.token, actor_id, over, slow
        samples, self._rate = speech
        self._samples = np.resize(samples, round(seconds * self._rate))

    def run(self) -> None:
        """Speak until the run is over."""
        with connect(self._target, token=self._token, timeout_s=600) as connection:
            while not self._over.is_set():
                try:
                    self._speak(connection)
                    self.told.streams += 1
                except DubstageCallError as problem:
                    if problem.code == BUSY and problem.retry_after_s > 0:
                        self.told.refused += 1
                        self._over.wait(problem.retry_after_s)
                    else:
                        self.told.errors.append(f"{problem.code} {problem.reason}: {problem.message}")
                        return

    def _speak(self, connection: Connection) -> None:
        sent: list[float] = []

        def spoken() -> Iterator[npt.NDArray[np.float32]]:
            step, began = round(CHUNK_S * self._rate), time.monotonic()
            for first in range(0, len(self._samples), step):
                piece = self._samples[first : first + step]
                # A piece is sent when its last sample has been spoken.
                time.sleep(max(0.0, began + (first + len(piece)) / self._rate - time.monotonic()))
                sent.append(time.monotonic())
                yield piece

        frames = client.live(connection, spoken(), actor_id=self._actor_id, sample_rate_hz=self._rate, max_late_ms=MAX_LATE_MS)
        came = 0
        with closing(frames):
            for frame in frames:
                came += 1
                self.told.latencies_s.append(time.monotonic() - sent[min(frame.frame_index, len(sent) - 1)])
                if self._slow:
                    time.sleep(SLOW_FRAME_S)
        self.told.frames += came
        self.told.left_out += -(-len(self._samples) * 25 // self._rate) - came
