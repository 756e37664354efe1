"""Runs of tests against one mutant, in a copy of the checkout."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

import services  # noqa: F401  # sets the variables that BLAS reads, before NumPy is loaded
from tests.mutants.mutations import Mutant
from tests.mutants.nearest import nearest_tests
from tests.unit.architecture.module_graph import ROOT

_PRELOADED = (
    *("av", "cv2", "grpc.aio", "grpc_status.rpc_status", "hypothesis", "jinja2", "matplotlib.figure", "numpy", "onnxruntime"),
    *("opentelemetry.sdk.trace", "prometheus_client", "pydantic_settings", "rich.progress", "scipy.ndimage", "scipy.signal"),
    *("sqlalchemy", "sqlalchemy.dialects.sqlite", "starlette.applications", "structlog", "torch", "typer"),
)
"""Libraries that each run has from the start. Importing them takes longer than most runs."""
_PRELOADED_WARNING = "ignore::pytest.PytestAssertRewriteWarning"
_OURS = ("services", "gateway", "research", "tests", "dubstage")
_BESIDE = ("", "protos", "protos/gen")
"""Folders of a checkout that Python finds modules in."""
_IGNORED = ("protos/gen",)
"""Folders that git ignores and tests need."""


class Result(StrEnum):
    """Result of the tests with a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    UNSOUND = "unsound"
    """The test that failed fails without the mutant too, or the tests take too long without the mutant too."""


@dataclass(frozen=True)
class Outcome:
    """Result of the tests with a mutant.

    Attributes:
        by: test that failed; "" where none did.
    """

    mutant: Mutant
    result: Result
    by: str
    tests: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Run:
    """One run of pytest; `timed_out` and `failed` are both empty where all tests pass."""

    failed: str = ""
    timed_out: bool = False


class Checkout:
    """A copy of the checkout, in which one mutant at a time takes the place of its file.

    Args:
        timeout_s: time of one run of tests.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._folder = Path(tempfile.mkdtemp(prefix="dubstage-mutants-"))
        self._root = self._folder / "main"
        self._sound: dict[tuple[str, ...], bool] = {}
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0"):
            if (ROOT / name).is_file():
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self._root / name)
        for name in _IGNORED:
            shutil.copytree(ROOT / name, self._root / name)
        for name in _PRELOADED:
            importlib.import_module(name)

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def try_mutant(self, mutant: Mutant) -> Outcome:
        """Run the nearest tests against a mutant. A mutant with which they do not end in time is killed."""
        began = time.monotonic()
        tests = tuple(nearest_tests(mutant.path))
        with self._replaced(mutant):
            run = self._run(tests) if tests else _Run()
        if not (run.failed or run.timed_out):
            result = Result.SURVIVED
        else:
            result = Result.KILLED if self._passes(tests if run.timed_out else (run.failed,)) else Result.UNSOUND
        by = f"more than {self._timeout_s:.0f} s" if run.timed_out else run.failed
        return Outcome(mutant, result, by, tests, time.monotonic() - began)

    @contextlib.contextmanager
    def _replaced(self, mutant: Mutant) -> Iterator[None]:
        path = self._root / mutant.path
        # The sources of a second have one time, and Python would take the compiled module of the other one.
        compiled = Path(importlib.util.cache_from_source(str(path)))
        source = path.read_text(encoding="utf-8")
        try:
            path.write_text(mutant.text(source), encoding="utf-8")
            compiled.unlink(missing_ok=True)
            yield
        finally:
            path.write_text(source, encoding="utf-8")
            compiled.unlink(missing_ok=True)

    def _passes(self, tests: tuple[str, ...]) -> bool:
        """Return whether tests pass without a mutant."""
        if tests not in self._sound:
            self._sound[tests] = self._run(tests) == _Run()
        return self._sound[tests]

    def _run(self, tests: Sequence[str]) -> _Run:
        """Run tests in a process of their own, up to the first that fails."""
        answer = self._folder / "answer.json"
        answer.unlink(missing_ok=True)
        deadline = time.monotonic() + self._timeout_s
        child = os.fork()
        if not child:
            self._run_and_exit(tests, answer)
        ended = False
        try:
            while not ended and time.monotonic() < deadline:
                time.sleep(0.05)
                ended = os.waitpid(child, os.WNOHANG) != (0, 0)
        finally:
            # With all processes that the tests have started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if not ended:
                os.waitpid(child, 0)
        if not ended:
            return _Run(timed_out=True)
        # Without an answer the process has crashed.
        return _Run(failed=json.loads(answer.read_text()) if answer.exists() else tests[0])

    def _run_and_exit(self, tests: Sequence[str], answer: Path) -> NoReturn:
        try:
            os.setsid()
            log = os.open(self._folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            null = os.open(os.devnull, os.O_RDONLY)
            for number, file in enumerate((null, log, log)):
                os.dup2(file, number)
            for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
                del sys.modules[name]
            folders = [str(self._root / folder) for folder in _BESIDE]
            sys.path[:] = [*folders, *(path for path in sys.path if path not in ("", str(ROOT)))]
            os.environ["PYTHONPATH"] = os.pathsep.join(folders)
            os.environ.setdefault("DUBSTAGE_CLIPS", str(ROOT.parent / "shared" / "clips"))
            os.chdir(self._root)
            # Looking for a simpler example takes minutes, and a failure is enough.
            hypothesis.settings.register_profile(
                "mutants", phases=set(hypothesis.Phase) - {hypothesis.Phase.shrink, hypothesis.Phase.explain}
            )
            hypothesis.settings.load_profile("mutants")
            recorder = _Recorder()
            options = ("--exitfirst", "--quiet", "--numprocesses=0", "-mnot long", "-pno:cacheprovider", f"-W{_PRELOADED_WARNING}")
            # The tests of a file stay in its order, the nearest file stays first, and random numbers are the same in every run.
            order = ("--randomly-seed=1", "--randomly-dont-reorganize", "--hypothesis-seed=1")
            code = pytest.main([*options, *order, *tests], plugins=[recorder])
            if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                recorder.failed = ""
            answer.write_text(json.dumps(recorder.failed or ("" if code in (0, 5) else tests[0])))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)


class _Recorder:
    """Plugin of pytest that keeps the first test, or file of tests, that fails."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._keep(report)

    def _keep(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid
