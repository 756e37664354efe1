"""Metrics of the live streams of one process."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.live.admission import LiveAdmission


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
