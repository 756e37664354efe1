"""Admission of live streams: as many as the measured time of their frames allows, divided fairly between tenants. With metrics."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.common.errors import OverloadedError
from services.common.wire.timeline import MOTION_RATE

MAX_FRAME_S: Final = 0.15
"""Most mean seconds from the motion of a frame to its picture, with one more stream, at which a further stream is taken.

An idle gateway needs 0.02 to 0.05 s. If the streams together need more than the processors have, frames wait for each other, and a
frame takes 0.3 s and more.
"""
MEASURED_FRAMES: Final = 50
"""Frames, of all streams together, that the mean is over."""
MEASURED_S: Final = 5.0
"""Seconds for which the time of a frame counts. A stream that shows no frame any more keeps no other stream out."""
SHOWN_FRAMES: Final = 15
"""Frames after which a stream has shown what it costs."""
SHOWN_S: Final = 3.0
"""Seconds after which a stream that sends no sound does not keep others out any more."""
MOST_NEW: Final = 2
"""Most streams that may run without having shown what they cost."""
FASTEST_S: Final = 0.75 / float(MOTION_RATE)
"""A stream with less time than this between two frames gets its sound faster than it is spoken. Its frames wait for each other
because it sends too much, not because the gateway has too little time."""
DROPPED_S: Final = 2 * MAX_FRAME_S
"""Time that counts for a frame that is left out."""
MOST_DROPPED: Final = 24
"""Most frames, one after the other, that are left out because they are late. The next frame comes, however late it is."""
WAITS_S: Final = 10.0
"""Seconds for which a tenant that was refused counts as waiting: it was told to come again much sooner."""
SOON_S: Final = 1.0
LATER_S: Final = 3.0
_LOOKED_BACK: Final = 8
"""Frames over which a reader is seen to be slow: a frame that waits for its reader has been ready before."""


class LiveStream:
    """A stream that was taken.

    Attributes:
        tenant: whose stream it is.
        frames: number of frames whose picture was ready.
        dropped: number of frames that were left out because they were late.
        began: time at which the stream was taken, seconds.

    Args:
        tenant: whose stream it is.
        measured: gets the present time and the time that the frame took, of each frame.
        now: returns the present time, seconds.
    """

    def __init__(self, tenant: str, measured: deque[tuple[float, float]], now: Callable[[], float]) -> None:
        self.tenant = tenant
        self.frames = self.dropped = 0
        self.began = now()
        self._measured, self._now = measured, now
        self._last = self.began
        self._paused_s = 0.0
        self._dropped_now = 0
        self._pause_began: float | None = None
        # When the last pictures were ready, and how long the reader had paused until then.
        self._shown = deque([(self.began, 0.0)], maxlen=_LOOKED_BACK)

    @contextmanager
    def given(self) -> Iterator[None]:
        """Do not count the time in which the reader of the stream takes a frame: a slow reader shows nothing of the gateway."""
        self._pause_began = self._now()
        try:
            yield
        finally:
            self._paused_s += self._now() - self._pause_began
            self._pause_began = None

    def begin(self) -> float:
        """Begin a frame whose motion is known. Return the seconds of this stream, without those in which its reader took frames."""
        return self._now() - self._paused_s

    def took(self, begun: float) -> None:
        """Measure a frame whose picture is ready.

        Args:
            begun: what `begin` returned for the frame.
        """
        end = self._now() - self._paused_s
        between, self._last = end - self._last, end
        self._measured.append((self._now(), between if between < FASTEST_S and self.frames else end - begun))
        self.frames += 1
        self._shown.append((self._now(), self._paused_s))

    def keep(self) -> None:
        """Note that a frame is not left out."""
        self._dropped_now = 0

    def may_drop(self) -> bool:
        """Return whether a frame may be left out: the picture does not stand still for longer than MOST_DROPPED frames."""
        return self._dropped_now < MOST_DROPPED

    def drop(self) -> None:
        """Count a frame that is left out because it is late. If the reader is not slow, the gateway has too little time."""
        self.dropped += 1
        self._dropped_now += 1
        now, (shown, paused_s) = self._now(), self._shown[0]
        pausing_s = now - self._pause_began if self._pause_began is not None else 0.0
        if self._paused_s + pausing_s - paused_s < (now - shown) / 2:
            self._measured.append((now, DROPPED_S))


class LiveAdmission:
    """The live streams of all tenants of one process. Used from one event loop.

    Attributes:
        refused: number of refused streams by reason: `limit`, `new`, `capacity` or `fairness`.

    Args:
        max_streams: most streams at the same time, whatever they cost.
        max_frame_s: see MAX_FRAME_S.
        now: returns the present time, seconds.
    """

    def __init__(self, max_streams: int, max_frame_s: float = MAX_FRAME_S, now: Callable[[], float] = time.monotonic) -> None:
        self.refused: Counter[str] = Counter()
        self._dropped = 0
        self._max_streams, self._max_frame_s = max_streams, max_frame_s
        self._now = now
        self._running: list[LiveStream] = []
        self._measured: deque[tuple[float, float]] = deque(maxlen=MEASURED_FRAMES)
        self._waiting: dict[str, float] = {}
        self._number = 0
        # This maps each tenant to the number of the stream that the tenant began last.
        self._taken: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Number of streams that run now."""
        return len(self._running)

    @property
    def dropped(self) -> int:
        """Number of late frames that were left out, of all streams that ever ran."""
        return self._dropped + sum(one.dropped for one in self._running)

    @property
    def frame_s(self) -> float:
        """Mean seconds from the motion of a frame to its picture, of the last frames; 0: there was none within MEASURED_S."""
        since = self._now() - MEASURED_S
        recent = [took for at, took in self._measured if at >= since]
        return sum(recent) / len(recent) if recent else 0.0

    @property
    def load(self) -> float:
        """Share of the live streams that the gateway takes, by their number or by the time of their frames, 0 to 1."""
        count = len(self._running)
        return min(1.0, max(count / self._max_streams, self.frame_s / self._max_frame_s)) if count else 0.0

    @contextmanager
    def stream(self, tenant: str) -> Iterator[LiveStream]:
        """Take a stream until the context ends.

        Args:
            tenant: whose stream it is.

        Raises:
            OverloadedError: the gateway takes no further stream of this tenant now; the error says when to try again.
        """
        self._check(tenant)
        self._waiting.pop(tenant, None)
        self._number += 1
        self._taken[tenant] = self._number
        stream = LiveStream(tenant, self._measured, self._now)
        self._running.append(stream)
        try:
            yield stream
        finally:
            self._running.remove(stream)
            self._dropped += stream.dropped
            if not self._running:
                self._measured.clear()

    def _check(self, tenant: str) -> None:
        count, now = len(self._running), self._now()
        new = sum(one.frames + one.dropped < SHOWN_FRAMES and now - one.began < SHOWN_S for one in self._running)
        if count >= self._max_streams:
            raise self._refusal(tenant, "limit", f"{count} live streams run already, as many as the gateway takes", LATER_S)
        if count and self.frame_s * (count + 1) / count > self._max_frame_s:
            raise self._refusal(
                tenant,
                "capacity",
                f"{count} live streams run, and their frames take {1000 * self.frame_s:.0f} ms: there is no time for another",
                LATER_S,
            )
        if self._is_anothers_turn(tenant, now):
            raise self._refusal(tenant, "fairness", "it is the turn of another caller, who waits for a live stream", LATER_S)
        if new >= MOST_NEW:
            raise self._refusal(tenant, "new", f"{new} live streams begin at this moment: try again in {SOON_S:g} s", SOON_S)

    def _is_anothers_turn(self, tenant: str, now: float) -> bool:
        """Return whether a tenant was refused just now, and will come again, who has fewer streams, or as many and waits longer."""
        self._waiting = {name: since for name, since in self._waiting.items() if now - since < WAITS_S}
        held = Counter(one.tenant for one in self._running)
        mine = (held[tenant], self._taken[tenant])
        return any((held[name], self._taken[name]) < mine for name in self._waiting)

    def _refusal(self, tenant: str, reason: str, message: str, retry_after_s: float) -> OverloadedError:
        self.refused[reason] += 1
        self._waiting[tenant] = self._now()
        return OverloadedError(message, retry_after_s=retry_after_s)


class LiveMetrics(Collector):
    """Streams, the time of their frames, refusals and frames that were left out, read when Prometheus asks.

    Args:
        admission: the streams of the process.
    """

    def __init__(self, admission: LiveAdmission) -> None:
        self._admission = admission

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        now = self._admission
        yield GaugeMetricFamily("dubstage_live_streams", "Live streams that run now", value=now.running)
        yield GaugeMetricFamily(
            "dubstage_live_frame_seconds", "Mean time from the motion of a live frame to its picture", value=now.frame_s
        )
        yield CounterMetricFamily(
            "dubstage_live_frames_dropped", "Live frames that were left out because they were late", now.dropped
        )
        refused = CounterMetricFamily("dubstage_live_refused", "Live streams that were refused, by reason", labels=["reason"])
        for reason, count in sorted(now.refused.items()):
            refused.add_metric([reason], count)
        yield refused
