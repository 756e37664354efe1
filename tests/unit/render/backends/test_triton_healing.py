"""Healing of Triton's models, without a server. tests/contract/render/test_triton_healing.py heals models of a real server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import BackendUnavailableError
from services.render.backends import triton_healing
from services.render.backends.base import TritonOptions
from services.render.backends.model_files import ModelFile
from services.render.backends.triton_control import CurableError, Cure, ServedModel
from services.render.backends.triton_healing import TritonHealer, TritonMonitor

LOST = CurableError("the process of the model died", Cure.RELOAD)


@pytest.mark.parametrize("outcome", ["healed", "failed"])
def test_heals_counted_from_zero(outcome: str) -> None:
    """Heals are counted from 0 so that the first is an increase."""
    registry, monitor = CollectorRegistry(), TritonMonitor()
    for collector in monitor.collectors:
        registry.register(collector)

    def counted() -> float | None:
        return registry.get_sample_value("dubstage_triton_heals_total", {"outcome": outcome})

    assert counted() == 0.0
    monitor.heals.labels(outcome).inc()
    assert counted() == 1.0


class Control:
    """Stands in for the control of a server: `broken` models do not compute, and `hangs` keeps a reload until `close`."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.reloads: Counter[str] = Counter()
        self.hangs = False
        self.at_reload, self.closed = threading.Event(), threading.Event()
        self.was_cut = False
        self._looked = threading.Condition()
        self._looks: Counter[str] = Counter()

    def wait_live(self, timeout_s: float) -> None:
        if self.closed.is_set():
            raise ValueError("Cannot invoke RPC on closed channel!")

    def forget_regions(self) -> None:
        pass

    def load(self, file: ModelFile) -> ServedModel:
        return ServedModel(file=file, version="1", runtime="onnxruntime", num_threads=1, max_batch=1, inputs=(), outputs=())

    def reload(self, file: ModelFile) -> ServedModel:
        self.reloads[file.name] += 1
        self.at_reload.set()
        if self.hangs:
            self.was_cut = self.closed.wait(10)
            raise ValueError("Cannot invoke RPC on closed channel!")
        return self.load(file)

    def probe(self, model: ServedModel, timeout_s: float) -> None:
        with self._looked:
            self._looks[model.file.name] += 1
            self._looked.notify_all()
        if model.file.name in self.broken:
            raise LOST

    def close(self) -> None:
        self.closed.set()

    def wait_for_probes(self, model: str, number: int) -> None:
        """Wait for so many further probes of a model to begin."""
        with self._looked:
            target = self._looks[model] + number
            assert self._looked.wait_for(lambda: self._looks[model] >= target, 60)


def model_file(name: str) -> ModelFile:
    return ModelFile(name, Path(name), "", None, 1, "", (), (), max_batch_size=1, box_size=256)


def watchdogs_end() -> None:
    for thread in threading.enumerate():
        if thread.name == "triton-watchdog":
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    control = Control()
    monkeypatch.setattr(triton_healing, "TritonControl", lambda options: control)
    monkeypatch.setattr(triton_healing, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(triton_healing, "_CLOSE_S", 0.01)
    return control


@pytest.fixture
def monitor() -> TritonMonitor:
    return TritonMonitor()


@pytest.fixture
def healer(control: Control, monitor: TritonMonitor) -> Iterator[TritonHealer]:
    """A healer of the models `dead` and `sound`, which probes all the time."""
    healer = TritonHealer(TritonOptions(url="triton:8001", probe_interval_s=0.005, heal_attempts=1), monitor)
    for name in ("dead", "sound"):
        healer.load(model_file(name))
    yield healer
    healer.close()
    watchdogs_end()


def test_unhealable_model_is_not_hidden(control: Control, monitor: TritonMonitor, healer: TritonHealer) -> None:
    """A model that cannot be healed is not hidden by one that computes."""
    control.broken.add("dead")
    with pytest.raises(BackendUnavailableError):
        healer.heal("dead", healer.reloads("dead"), LOST)
    for _ in range(3):
        control.wait_for_probes("sound", 1)
        assert not monitor.is_serving()
    assert control.reloads["sound"] == 0


def test_last_healed_model_restores_serving(control: Control, monitor: TritonMonitor, healer: TritonHealer) -> None:
    """The stage serves again when the last model that was lost computes."""
    control.broken.update(("dead", "sound"))
    while monitor.lost != control.broken:
        control.wait_for_probes("sound", 1)
    control.broken.remove("sound")
    control.wait_for_probes("sound", 2)
    assert monitor.lost == {"dead"}
    control.broken.remove("dead")
    control.wait_for_probes("dead", 2)
    assert monitor.is_serving()


def test_closing_ends_a_reload_that_hangs(control: Control, healer: TritonHealer) -> None:
    control.hangs = True
    control.broken.add("dead")
    assert control.at_reload.wait(60)
    healer.close()
    watchdogs_end()
    assert control.was_cut


def test_watchdog_survives_slow_load(control: Control, healer: TritonHealer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog never sees a model that has not answered yet."""
    answered = healer.answered

    def late(model: str) -> None:
        if model == "new":
            time.sleep(0.1)
        answered(model)

    monkeypatch.setattr(healer, "answered", late)
    healer.load(model_file("new"))
    control.wait_for_probes("new", 2)
    control.wait_for_probes("sound", 2)
