"""Results of the drill, as JSON and as a page to read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Strike:
    """A fault that happened.

    Attributes:
        at_s: time since the batch began, seconds.
        fault: name of the fault.
        hit: what was hit.
        ended: shots that had ended.
    """

    at_s: float
    fault: str
    hit: str
    ended: int


@dataclass(frozen=True)
class ShotResult:
    """One shot of the disturbed batch.

    Attributes:
        id: name of the shot.
        attempts: tries that were begun.
        state: last state.
        same: whether the video has the bytes of the undisturbed video.
        error: error of the last try; empty: none.
    """

    id: str
    attempts: int
    state: str
    same: bool
    error: str


@dataclass
class Outcome:
    """The whole drill.

    Attributes:
        seed: seed of the moments and of the order of the faults.
        quiet_s: time of the undisturbed batch, seconds.
        drill_s: time of the disturbed batch, seconds.
        strikes: faults in their order.
        missed: faults for which the batch was too short.
        retried: shots that failed and that a retry was asked for, with their errors.
        shots: shots of the disturbed batch.
        left: files that are neither videos nor footage.
    """

    seed: int
    quiet_s: float = 0.0
    drill_s: float = 0.0
    strikes: list[Strike] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    retried: dict[str, str] = field(default_factory=dict)
    shots: list[ShotResult] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every fault happened, every shot is done with the right bytes, and nothing is left over."""
        return (
            not self.missed and not self.left and bool(self.shots) and all(one.state == "DONE" and one.same for one in self.shots)
        )


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write drill.json and drill.md; return the path of drill.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "drill.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n", encoding="utf-8")
    same = sum(one.same for one in outcome.shots)
    lines = [
        f"# Fault drill: {'passed' if outcome.good else 'FAILED'}",
        "",
        f"{len(outcome.shots)} shots, {same} with the bytes of the undisturbed run; {outcome.quiet_s:.0f} s undisturbed,"
        f" {outcome.drill_s:.0f} s with {len(outcome.strikes)} faults; seed {outcome.seed}.",
        "",
        "| at | fault | hit | shots ended before |",
        "|---|---|---|---|",
        *(f"| {one.at_s:.0f} s | {one.fault} | {one.hit} | {one.ended} |" for one in outcome.strikes),
        *([f"\nThe batch ended before: {', '.join(outcome.missed)}."] if outcome.missed else []),
        *([f"\nLeft over: {', '.join(outcome.left)}."] if outcome.left else []),
        "",
        f"Shots that failed and were retried: {len(outcome.retried)}.",
        *(f"- {name}: {error}" for name, error in sorted(outcome.retried.items())),
        "",
        "| shot | tries | state | same bytes | error |",
        "|---|---|---|---|---|",
        *(f"| {one.id} | {one.attempts} | {one.state} | {'yes' if one.same else 'NO'} | {one.error} |" for one in outcome.shots),
    ]
    page = folder / "drill.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page
