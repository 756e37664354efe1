"""Tests of the cost of a method in an evaluation."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from research.evaluation import protocol
from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.protocol import CostMeter, EvaluationSettings, evaluate_clip
from research.evaluation.types import COSTS, Rendered, Variant
from tests.unit.research.evaluation.drawn_clip import Actor, DrawnClip, read_mouths

PEAKS = """
import json
import numpy as np
from research.evaluation import protocol
block = np.ones(1 << 27, np.uint8)
del block
meter, peaks = protocol.CostMeter(), []
with meter.enrolling():
    pass
peaks.append(meter.metrics()["peak_memory_mib"])
with meter.rendering(1):
    np.ones(1 << 26, np.uint8).sum()
peaks.append(meter.metrics()["peak_memory_mib"])
try:
    protocol._CLEAR.write_text("5")
except OSError:
    peaks.append(None)
print(json.dumps(peaks))
"""
"""Program that prints the peak before and after 64 MiB are taken; a third item where the kernel begins no peak anew."""


def test_time_is_shared_among_enrolments_and_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": 100.0, "cpu": 10.0}
    clock = SimpleNamespace(perf_counter=lambda: now["wall"], process_time=lambda: now["cpu"])
    monkeypatch.setattr(protocol, "time", clock)

    def work(wall_s: float, cpu_s: float) -> None:
        now["wall"] += wall_s
        now["cpu"] += cpu_s

    meter = CostMeter()
    for seconds in (4.0, 8.0):
        with meter.enrolling():
            work(seconds, 2.0 * seconds)
        meter.learned(3 << 20)
        work(100.0, 100.0)
    with meter.predicting(100):
        work(5.0, 10.0)
    with meter.rendering(4):
        work(2.0, 3.0)
    # Frames that are rendered for another variant do not count.
    with meter.rendering(0):
        work(50.0, 50.0)
    with meter.rendering(6):
        work(1.0, 2.0)
    found = meter.metrics()
    assert (found["personalize_s"], found["personalize_cpu_s"], found["actor_mib"]) == (6.0, 12.0, 3.0)
    assert (found["ms_per_frame"], found["cpu_ms_per_frame"]) == (350.0, 600.0)


@pytest.mark.parametrize("variants", [("full",), ("mean_mouth", "full")], ids="+".join)
def test_other_variants_pay_for_no_motion(variants: tuple[Variant, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use of an actor predicts 100 frames in 10 s, and later uses know the motion."""
    now = {"wall": 0.0}
    monkeypatch.setattr(protocol, "time", SimpleNamespace(perf_counter=lambda: now["wall"], process_time=lambda: 0.0))

    class Slow(DrawnClip):
        def predict(self, actor: Actor) -> None:
            now["wall"] += 0.0 if actor in known else 10.0
            known.append(actor)

        def render(self, actor: Actor, *asked: Any) -> Rendered:
            self.predict(actor)
            return super().render(actor, *asked)

    known: list[Actor] = []
    settings = EvaluationSettings(variants=variants, bootstrap=BootstrapSettings(replicates=2), sample_count=0)
    assert evaluate_clip(Slow(num_frames=100), read_mouths, settings=settings).cost["ms_per_frame"] == pytest.approx(100.0)


def test_everything_that_is_measured_takes_time() -> None:
    meter = CostMeter()
    with meter.enrolling():
        np.linalg.svd(np.random.default_rng(0).random((200, 200)))
    meter.learned(1 << 20)
    with meter.predicting(4):
        np.linalg.svd(np.random.default_rng(0).random((50, 50)))
    with meter.rendering(4):
        np.linalg.svd(np.random.default_rng(0).random((200, 200)))
    found = meter.metrics()
    assert tuple(found) == COSTS
    assert all(value > 0.0 for name, value in found.items() if name != "peak_memory_mib")


def test_the_peak_is_that_of_what_was_measured() -> None:
    # In a process of its own. In this one, other tests hold gigabytes, and the collector may give them back at any moment.
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, timeout=300, check=True)
    before, after, *no_new_peak = json.loads(done.stdout)
    if no_new_peak:
        assert math.isnan(before)
        assert math.isnan(after)
    else:
        assert after > before + 48.0


def test_unresettable_peak_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A peak that cannot begin anew is not measured."""
    monkeypatch.setattr(protocol, "_CLEAR", tmp_path / "no such folder" / "clear_refs")
    meter = CostMeter()
    with meter.enrolling():
        pass
    found = meter.metrics()
    assert math.isnan(found["peak_memory_mib"])
    assert found["personalize_s"] >= 0.0


def test_what_was_not_measured_is_nan() -> None:
    assert all(math.isnan(value) for value in CostMeter().metrics().values())
