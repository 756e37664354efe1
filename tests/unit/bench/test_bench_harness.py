from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import av
import pytest

from bench.concurrency import ConcurrentTimes
from bench.fitting import FittingTimes
from bench.footage import make_footage, read_sound
from bench.inside import Inside, read_inside
from bench.live import LiveTimes
from bench.methods import MethodTime
from bench.paths import PathTime
from bench.process import CommandFailedError, measure
from bench.rasteriser import RasteriserTime
from bench.renderer import ModelTime, NetworkTime
from bench.result import BenchResult, lines_of, to_json, write_json
from gateway.stages.times import StageTime

HOLD = "x = bytearray(80 << 20); import time; time.sleep(0.3)"


def test_peak_memory_counts_children(tmp_path: Path) -> None:
    alone = measure([sys.executable, "-c", HOLD], tmp_path / "log")
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    with_child = measure([sys.executable, "-c", parent], tmp_path / "log")
    assert alone.peak_memory_mib > 80
    assert with_child.peak_memory_mib > alone.peak_memory_mib + 3
    assert alone.wall_s > 0.3


def test_processor_time_is_that_of_the_command_alone(tmp_path: Path) -> None:
    busy = measure([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"], tmp_path / "log")
    idle = measure([sys.executable, "-c", "pass"], tmp_path / "log")
    assert busy.cpu_s > idle.cpu_s > 0.0


def test_a_failing_command_is_named_with_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="code 3"):
        measure([sys.executable, "-c", "print('bad luck'); raise SystemExit(3)"], tmp_path / "log")
    assert "bad luck" in (tmp_path / "log").read_text()


def test_footage_is_looped_to_720p_with_sound(carphone: Path, tmp_path: Path) -> None:
    speech = Path(__file__).parents[3] / "assets" / "demo_speech.wav"
    frames = make_footage(carphone, speech, 0.5, tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as container:
        decoded = list(container.decode(video=0))
    assert len(decoded) == frames == 14
    assert (decoded[0].width, decoded[0].height) == (1280, 720)
    assert len(read_sound(tmp_path / "film.mp4")) == pytest.approx(24_000, abs=2048)


def test_footage_without_any_sound_is_refused(carphone: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sound"):
        make_footage(carphone, None, 0.5, tmp_path / "film.mp4")


def test_the_result_has_the_agreed_keys(tmp_path: Path) -> None:
    inside = Inside(
        stages=(StageTime("face", 2.0, 1.0, 250),),
        live=LiveTimes(200.0, 150.0, 180.0, 20.0, 18.0, 100),
        renderer=(NetworkTime("onnxruntime", "int8", 6.0, 5.5, True),),
        models=(ModelTime("everybody", 9.8, 13.1),),
        fitting=FittingTimes(250, 4.8, 1.7, 0.19, 2.5, 2.4, 0.15, 1.0, 1.2),
        paths=(PathTime("retiming", 15000, 15000, 0.4, 0.4, 30.0),),
        rasteriser=(RasteriserTime(468, 850, 224, 1, 0.4, 0.7, 2.9),),
    )
    (tmp_path / "inside.json").write_text(json.dumps(asdict(inside)))
    result = BenchResult(
        frames=250,
        end_to_end_s=12.5,
        cpu_s=20.0,
        command_s=15.0,
        personalize_seconds=100.0,
        peak_memory_mib_short=1000.0,
        peak_memory_mib_long=1030.0,
        long_frames=7500,
        inside=read_inside(tmp_path / "inside.json"),
        concurrency=(ConcurrentTimes("triton", 16, 140.0, 400.0, 500.0, 600.0, 1.2, 9.5, 11.0),),
        methods=(MethodTime("everybody", 250, 10.0, 20.0, 30.0),),
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
        {"method": "everybody", "frames": 250, "end_to_end_s": 10.0, "cpu_s": 20.0, "personalize_s": 30.0}
    ]
    assert document["renderer_models"][0] == {"model": "everybody", "network_ms": 9.8, "frame_ms": 13.1}
    assert document["fitting"]["fit_ms"] == 1.7
    assert document["paths"][0]["seconds"] == 0.4
    assert document["render_concurrency"][0]["backend"] == "triton"
    assert document["render_concurrency"][0]["health_p99_ms"] == 9.5
    assert result.inside == inside
    text = "\n".join(lines_of(result))
    assert "+3.0 %" in text
    assert "80.00" in text
    for line in ("renderer everybody: 9.8 ms", "method everybody: 25.0 frames", "FitIdentity of 250", "retiming, 10 min"):
        assert line in text
    write_json(tmp_path / "out" / "bench.json", result)
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == document
