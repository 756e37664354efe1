from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from gateway.live.admission import LiveAdmission
from gateway.live.metrics import LiveMetrics
from services.common.errors import Overloaded


def test_metrics_show_streams_refusals_and_frames_that_were_left_out() -> None:
    admission, registry = LiveAdmission(1), CollectorRegistry()
    registry.register(LiveMetrics(admission))
    assert registry.get_sample_value("dubstage_live_streams") == 0
    with admission.stream("ann") as stream:
        stream.took(stream.begin())
        stream.drop()
        with pytest.raises(Overloaded), admission.stream("bob"):
            pass
        assert registry.get_sample_value("dubstage_live_streams") == 1
        assert registry.get_sample_value("dubstage_live_frames_dropped_total") == 1
        assert registry.get_sample_value("dubstage_live_refused_total", {"reason": "limit"}) == 1
        assert (registry.get_sample_value("dubstage_live_frame_seconds") or 0) > 0
    assert registry.get_sample_value("dubstage_live_streams") == 0
    # What was counted stays.
    assert registry.get_sample_value("dubstage_live_frames_dropped_total") == 1
