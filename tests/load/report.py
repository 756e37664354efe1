"""Results of the load run, as JSON and as a page to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tests.load.callers import Told
from tests.load.http_callers import Seen

MEMORY_GROWTH = 1.1
"""Most that the peak of memory in the second half may be of the peak in the first half."""
LOCKED_OUT_S = 30.0
"""Most seconds without a successful call of an honest caller over HTTP."""
FAIR_SHARE = 0.5
"""Least part of its fair share that a tenant must get."""
ON_TIME = 0.5
"""Least part of a tenant's frames that must come; the others are left out because they are late."""


@dataclass
class Outcome:
    """The whole run.

    Attributes:
        seconds: time in which streams began, seconds.
        wanted: number of streams that each tenant wants at the same time.
        told: what each caller saw.
        memory_mib: resident memory of the gateway at each look, MiB.
        shots: state of each shot of the batch, with its error.
        log_errors: lines of the gateway's log with an error or a traceback.
    """

    seconds: float
    wanted: dict[str, int]
    told: list[Told] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    shots: list[str] = field(default_factory=list)
    log_errors: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        """Every error of a caller other than RESOURCE_EXHAUSTED with a time to try again."""
        return [error for one in self.told for error in one.errors]

    def mean_streams(self, tenant: str) -> float:
        """Return how many streams of a tenant ran in the mean, by the frames that its callers got or missed."""
        frames = sum(one.frames + one.left_out for one in self.told if one.tenant == tenant)
        return frames / 25 / self.seconds

    def share(self, tenant: str) -> float:
        """Return the part of its fair share that a tenant got: the share is what it wants, or an equal part of all that ran."""
        ran = sum(self.mean_streams(name) for name in self.wanted)
        fair = min(self.wanted[tenant], ran / len(self.wanted))
        return self.mean_streams(tenant) / fair if fair else 0.0

    def on_time(self, tenant: str) -> float:
        """Return the part of a tenant's frames that came; the others were late and left out."""
        came = sum(one.frames for one in self.told if one.tenant == tenant)
        missed = sum(one.left_out for one in self.told if one.tenant == tenant)
        return came / (came + missed) if came else 0.0

    @property
    def growth(self) -> float:
        """Growth of the memory (`growth_of`)."""
        return growth_of(self.memory_mib)

    @property
    def good(self) -> bool:
        """Whether no other error came, memory was bounded, every tenant got its share and its frames, and the batch is done."""
        return (
            not self.errors
            and not self.log_errors
            and 0.0 < self.growth <= MEMORY_GROWTH
            and all(self.share(name) >= FAIR_SHARE and self.on_time(name) >= ON_TIME for name in self.wanted)
            and all(shot.endswith(": DONE") for shot in self.shots)
        )


def growth_of(memory_mib: Sequence[float]) -> float:
    """Return the peak of memory in the second half of the looks, as a part of the peak in the first half; 0: too few looks."""
    half = len(memory_mib) // 2
    return max(memory_mib[half:]) / max(memory_mib[:half]) if half else 0.0


@dataclass
class HttpOutcome:
    """The whole run over HTTP.

    Attributes:
        seconds: time in which callers began, seconds.
        seen: what the callers saw.
        memory_mib: resident memory of the gateway at each look, MiB.
        calls_left: calls that ran in the gateway after all callers had gone.
        log_errors: lines of the gateway's log with an error or a traceback.
    """

    seconds: float
    seen: Seen
    memory_mib: list[float] = field(default_factory=list)
    calls_left: int = 0
    log_errors: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Growth of the memory (`growth_of`)."""
        return growth_of(self.memory_mib)

    @property
    def good(self) -> bool:
        """Whether no wrong answer came, memory was bounded, no honest caller was locked out, and no call was left."""
        return (
            not self.seen.errors
            and not self.log_errors
            and not self.calls_left
            and 0.0 < self.growth <= MEMORY_GROWTH
            and all(seconds <= LOCKED_OUT_S for seconds in self.seen.longest_s.values())
        )


def write_http_report(outcome: HttpOutcome, folder: Path) -> Path:
    """Write http.json and http.md; return the path of http.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "http.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")
    seen = outcome.seen
    statuses = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(seen.statuses.items()))
    lines = [
        f"# Load over HTTP: {'passed' if outcome.good else 'FAILED'}",
        "",
        f"{sum(seen.actions.values())} actions in {outcome.seconds:.0f} s. Answers by status: {statuses}.",
        f"Health: {len(seen.health_s)} answers, {_ms(seen.health_s, 50)} ms in the median, {_ms(seen.health_s, 99)} ms at 99 %, "
        f"{_ms(seen.health_s, 100)} ms at most. The machine was up to {seen.slowness:.1f} times slower than a free one.",
        f"Memory of the gateway: {max(outcome.memory_mib, default=0.0):.0f} MiB at most; the second half's peak is "
        f"{outcome.growth:.2f} of the first half's.",
        f"Calls left in the gateway: {outcome.calls_left}.",
        "",
        "| tenant | longest time without a successful honest call, s |",
        "|---|---|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in sorted(seen.longest_s.items())),
        "",
        "| action | number |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(seen.actions.items())),
        "",
        f"Wrong answers: {len(seen.errors)}.",
        *(f"- {error}" for error in seen.errors[:50]),
        *(f"- log: {line}" for line in outcome.log_errors[:20]),
    ]
    page = folder / "http.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write load.json and load.md; return the path of load.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "load.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")
    peak = max(outcome.memory_mib, default=0.0)
    lines = [
        f"# Load: {'passed' if outcome.good else 'FAILED'}",
        "",
        f"{len(outcome.told)} callers for {outcome.seconds:.0f} s, and a batch of {len(outcome.shots)} shots at the same time.",
        f"Memory of the gateway: {peak:.0f} MiB at most; the second half's peak is {outcome.growth:.2f} of the first half's.",
        "",
        "| tenant | streams wanted | ran in the mean | part of the fair share | frames that came | refused, came again |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {count} | {outcome.mean_streams(name):.2f} | {outcome.share(name):.2f} | {outcome.on_time(name):.0%} "
            f"| {_refused(outcome, name)} |"
            for name, count in outcome.wanted.items()
        ),
        "",
        "| caller | reads | streams | refused | frames | left out | latency: median, 95 %, ms |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {one.tenant} | {'slowly' if one.slow else 'at once'} | {one.streams} | {one.refused} "
            f"| {one.frames} | {one.left_out} | {_ms(one.latencies_s, 50)}, {_ms(one.latencies_s, 95)} |"
            for one in outcome.told
        ),
        "",
        f"Shots: {sum(shot.endswith(': DONE') for shot in outcome.shots)} of {len(outcome.shots)} done.",
        f"Errors other than RESOURCE_EXHAUSTED with RetryInfo: {len(outcome.errors)}.",
        *(f"- {error}" for error in outcome.errors),
        *(f"- log: {line}" for line in outcome.log_errors[:20]),
    ]
    page = folder / "load.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def _refused(outcome: Outcome, tenant: str) -> int:
    return sum(one.refused for one in outcome.told if one.tenant == tenant)


def _ms(latencies_s: Sequence[float], percent: float) -> str:
    return f"{1000 * float(np.percentile(latencies_s, percent)):.0f}" if latencies_s else "-"
