from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gateway.stages.timing import StageTime
from research.bench.__main__ import BenchResult, lines_of, to_json, write_json
from research.bench.actors import ActorTimes
from research.bench.components import ComponentTimes, read_components
from research.bench.concurrency import ConcurrentTimes
from research.bench.fitting import FittingTimes
from research.bench.frame_choice import FrameChoiceTime
from research.bench.live import LiveTimes
from research.bench.rasteriser import RasteriserTime
from research.bench.renderer import ModelTime, NetworkTime
from research.bench.runs import MethodTime


def test_the_result_has_the_agreed_keys(tmp_path: Path) -> None:
    components = ComponentTimes(
        stages=(StageTime("face", 2.0, 1.0, 250),),
        live=LiveTimes(200.0, 150.0, 180.0, 20.0, 18.0, 100),
        renderer=(NetworkTime("onnxruntime", "int8", 6.0, 5.5, True),),
        models=(ModelTime("everybody", 9.8, 13.1),),
        actors=(ActorTimes("everyone", 16, 40.0, 38.0),),
        fitting=FittingTimes(250, 4.8, 1.7, 0.19, 2.5, 2.4, 0.15, 1.0, 1.2, 31.0, 0.19, 3.0, 0.0),
        frame_choice=(FrameChoiceTime("retiming", 15000, 15000, 0.4, 0.4, 30.0),),
        rasteriser=(RasteriserTime(468, 850, 224, 1, 0.4, 0.7, 2.9),),
    )
    (tmp_path / "components.json").write_text(json.dumps(asdict(components)))
    result = BenchResult(
        frames=250,
        end_to_end_s=12.5,
        cpu_s=20.0,
        command_s=15.0,
        personalize_seconds=100.0,
        peak_memory_mib_short=1000.0,
        peak_memory_mib_long=1030.0,
        long_frames=7500,
        components=read_components(tmp_path / "components.json"),
        concurrency=(ConcurrentTimes("triton", 16, 140.0, 400.0, 500.0, 600.0, 1.2, 9.5, 11.0),),
        methods=(MethodTime("everybody", 250, 10.0, 20.0, 30.0, 900.0),),
    )
    document = to_json(result)
    assert document["end_to_end_frames_per_second"] == 20.0
    assert document["personalize_seconds"] == 100.0
    assert (document["peak_memory_mib_10s"], document["peak_memory_mib_5min"]) == (1000.0, 1030.0)
    assert document["stages"][0]["ms_per_frame"] == 8.0
    assert document["stages"][0]["cpu_ms_per_frame"] == 4.0
    assert document["live"]["first_frame_ms"] == 200.0
    assert document["renderer_network"][0]["precision"] == "int8"
    assert document["rasteriser"][0]["forward_backward_ms"] == 2.9
    assert document["methods"] == [
        {
            "method": "everybody",
            "frames": 250,
            "end_to_end_s": 10.0,
            "cpu_s": 20.0,
            "personalize_s": 30.0,
            "peak_memory_mib": 900.0,
        }
    ]
    assert document["renderer_models"][0] == {"model": "everybody", "network_ms": 9.8, "frame_ms": 13.1}
    assert document["renderer_actors"][0]["many_fps"] == 38.0
    assert document["fitting"]["fit_ms"] == 1.7
    assert document["paths"][0]["seconds"] == 0.4
    assert document["render_concurrency"][0]["backend"] == "triton"
    assert document["render_concurrency"][0]["health_p99_ms"] == 9.5
    assert result.components == components
    text = "\n".join(lines_of(result))
    assert "+3.0 %" in text
    assert "80.00" in text
    for line in (
        "renderer everybody: 9.8 ms",
        "method everybody: 25.0 frames",
        "38.0 of 16 actors (95 %)",
        "FitIdentity of 250",
        "retiming, 10 min",
    ):
        assert line in text
    write_json(tmp_path / "out" / "bench.json", result)
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == document
