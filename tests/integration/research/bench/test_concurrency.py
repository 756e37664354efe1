from pathlib import Path

import pytest

from research.bench.concurrency import check_health, under_load
from services.common.server.process import server_of
from services.render.__main__ import compose
from services.render.settings import RenderSettings


async def test_streams_timed_on_real_stage(tmp_path: Path) -> None:
    settings = RenderSettings(port=0, artefacts_url=str(tmp_path), compute_threads=1, drain_grace_s=0.0)
    async with server_of("render", settings, compose(settings)) as server:
        row = await under_load("in the process", server.address, streams=2, seconds=1.0)
    assert row.frames_per_second > 1.0
    assert 0.0 < row.p50_ms <= row.p95_ms <= row.p99_ms
    assert 0.0 < row.health_p50_ms <= row.health_p99_ms


def test_missing_stage_gives_no_time() -> None:
    with pytest.raises(RuntimeError, match="UNAVAILABLE"):
        check_health("127.0.0.1:1", 0.1)
