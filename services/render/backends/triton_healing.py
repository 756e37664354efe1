"""Healing of a server's models: a model that stops computing is noticed by inference and reloaded.

Triton's readiness does not help: a model whose process died stays ready.
"""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from prometheus_client.metrics import MetricWrapperBase

from services.common.errors import BackendUnavailableError, DubstageError, ModelNotFoundError
from services.render.backends.base import TritonOptions
from services.render.backends.model_files import ModelFile
from services.render.backends.triton_control import CurableError, Cure, ServedModel, TritonControl

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
_CLOSE_S: Final = 1.0
"""Most seconds that `close` waits, first for the watchdog, then for a thread that heals."""

_FAILURES: Final = (DubstageError, CurableError, ValueError)
"""Errors of a reload or a probe. A ValueError is gRPC's error for a connection that `close` has closed meanwhile."""

_log = structlog.stdlib.get_logger("dubstage.render.triton")


class TritonMonitor:
    """State of the backend that the stage's server shows: metrics, and whether the backend serves."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        """Names of the models that could not be healed, until a further attempt heals them."""
        self.on_waited: Callable[[float], None] = lambda seconds: None
        """Called now and then with the seconds that inferences waited at Triton for their turn."""
        self._on_close: list[Callable[[], None]] = []
        self.heals = Counter("dubstage_triton_heals", "Attempts to reload a model that did not compute", ["outcome"], registry=None)
        for outcome in ("healed", "failed"):
            self.heals.labels(outcome)  # 0 from the start, so that Prometheus sees the first increase
        self.failures = Counter("dubstage_triton_failures", "Inferences that failed at Triton", ["cure"], registry=None)
        self.in_flight = Gauge("dubstage_triton_in_flight", "Inferences that are at Triton now", registry=None)

    @property
    def collectors(self) -> tuple[MetricWrapperBase, ...]:
        """Metrics for a Prometheus registry."""
        return (self.heals, self.failures, self.in_flight)

    def is_serving(self) -> bool:
        """Return whether all models compute, by the last inferences and probes."""
        return not self.lost

    def on_close(self, function: Callable[[], None]) -> None:
        """Register a function that `close` calls."""
        self._on_close.append(function)

    def close(self) -> None:
        """Call the registered functions, which close the backends that report to this monitor."""
        while self._on_close:
            self._on_close.pop()()


class TritonHealer:
    """Loads models, and reloads models that stop computing. Safe for several threads.

    Args:
        monitor: receives failures and healings.
    """

    def __init__(self, options: TritonOptions, monitor: TritonMonitor) -> None:
        self.generation = 0
        """Number of reloads so far. Shared memory that was registered before the last reload may be gone at the server."""
        self._options = options
        self._monitor = monitor
        self._control = TritonControl(options)
        # The lock is held during a whole healing: another thread that finds the model dead waits for the end of the healing.
        self._lock = threading.Lock()
        self._served: dict[str, ServedModel] = {}
        self._reloads: Counts[str] = Counts()
        self._last_answer_s: dict[str, float] = {}
        self._closed = threading.Event()
        self._watchdog: threading.Thread | None = None

    def load(self, file: ModelFile) -> None:
        """Wait for the server, load a model, and begin to watch the model.

        Raises:
            BackendUnavailableError: the server does not answer.
            ModelNotFoundError: the server has no such network, or cannot load it, in two attempts.
        """
        with self._lock:
            self._control.wait_live(self._options.start_timeout_s)
            self._control.forget_regions()
            try:
                served = self._control.load(file)
            except ModelNotFoundError as error:
                # The server also says so of a sound model whose process did not answer for a second.
                _log.warning("triton_load_failed", model=file.name, reason=error.message)
                self._control.wait_live(self._options.start_timeout_s)
                served = self._control.reload(file)
            # The watchdog reads the last answer of every served model.
            self.answered(file.name)
            self._served[file.name] = served
        if self._watchdog is None:
            self._watchdog = threading.Thread(target=self._watch, name="triton-watchdog", daemon=True)
            self._watchdog.start()

    def served(self, model: str) -> ServedModel | None:
        """Return a loaded model; None: no model of this name was loaded."""
        return self._served.get(model)

    def reloads(self, model: str) -> int:
        """Return the number of reloads of one model so far."""
        return self._reloads[model]

    def answered(self, model: str) -> None:
        """Note that a model has just answered an inference."""
        self._last_answer_s[model] = time.monotonic()

    def heal(self, model: str, seen: int, failure: CurableError) -> None:
        """Make a model compute again, unless another thread healed the model since the failure.

        Args:
            model: name of a loaded model.
            seen: `reloads(model)` when the failed inference began. Reloads of other models do not count: after a restart of the
                server, each model is reloaded by itself.
            failure: error of the failed inference.

        Raises:
            BackendUnavailableError: the model cannot be healed for now.
        """
        with self._lock:
            if self._reloads[model] != seen or failure.cure is Cure.RETRY or self._closed.is_set():
                return
            if not self._monitor.is_serving():
                raise BackendUnavailableError(f"Triton at {self._options.url} does not compute now", retry_after_s=5.0)
            if failure.cure is Cure.PROBE and self._computes(model):
                return
            self._reload(model, str(failure))

    def close(self) -> None:
        """Stop watching. Models stay loaded at the server."""
        self._closed.set()
        if self._watchdog is not None:
            self._watchdog.join(_CLOSE_S)
        # A reload can last minutes, where Triton builds an engine or hangs. The end of the connection ends such a reload.
        held = self._lock.acquire(timeout=_CLOSE_S)
        try:
            self._control.close()
        finally:
            if held:
                self._lock.release()

    def _reload(self, model: str, reason: str) -> None:
        pause_s, begun_s = _FIRST_PAUSE_S, time.monotonic()
        _log.warning("triton_model_lost", model=model, reason=reason)
        for attempt in range(1, self._options.heal_attempts + 1):
            try:
                self._control.wait_live(self._options.heal_wait_s)
                served = self._control.reload(self._served[model].file)
                self._control.probe(served, self._options.timeout_s)
            except _FAILURES as error:
                self._monitor.heals.labels("failed").inc()
                reason = str(error)
                _log.warning("triton_heal_failed", model=model, attempt=attempt, reason=reason)
                if self._closed.wait(pause_s):
                    break
                pause_s = min(2.0 * pause_s, _LONGEST_PAUSE_S)
                continue
            self._served[model] = served
            self.generation += 1
            self._reloads[model] += 1
            self._monitor.lost.discard(model)
            self._monitor.heals.labels("healed").inc()
            self.answered(model)
            _log.info("triton_model_healed", model=model, attempt=attempt, duration_ms=round(1000.0 * (time.monotonic() - begun_s)))
            return
        self._monitor.lost.add(model)
        raise BackendUnavailableError(
            f"Triton at {self._options.url} does not compute model {model!r}: {reason}", retry_after_s=5.0
        )

    def _computes(self, model: str) -> bool:
        try:
            self._control.probe(self._served[model], min(self._options.timeout_s, self._options.heal_wait_s))
        except _FAILURES:
            return False
        self.answered(model)
        return True

    def _watch(self) -> None:
        while not self._closed.wait(self._options.probe_interval_s):
            for model in list(self._served):
                idle_s = time.monotonic() - self._last_answer_s[model]
                if model not in self._monitor.lost and idle_s < self._options.probe_interval_s:
                    continue
                with self._lock:
                    if self._closed.is_set():
                        return
                    try:
                        if model in self._monitor.lost or not self._computes(model):
                            self._reload(model, "a probe of one frame failed")
                    except BackendUnavailableError as error:
                        _log.error("triton_unavailable", model=model, reason=error.message)
