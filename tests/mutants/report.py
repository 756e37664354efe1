"""The report of a sample of mutants: text, the survivors first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.runs import Outcome, Result


def share(outcomes: Sequence[Outcome]) -> str:
    """Return the share of killed mutants, such as `160 of 200 killed (.80)`. Unsound runs do not count."""
    counts = Counter(outcome.result for outcome in outcomes)
    counted = counts[Result.KILLED] + counts[Result.SURVIVED]
    part = f" ({counts[Result.KILLED] / counted:.2f})".replace("(0.", "(.") if counted else ""
    return f"{counts[Result.KILLED]} of {counted} killed{part}"


def write_report(outcomes: Sequence[Outcome], title: str, folder: Path) -> Path:
    """Write `report.txt`; returns the path."""
    parts = [f"{title}: {share(outcomes)}\n"]
    for result, heading in (
        (Result.SURVIVED, "Survivors: no near test fails"),
        (Result.UNSOUND, "Unsound: the test fails without the mutant too"),
        (Result.KILLED, "Killed"),
    ):
        found = sorted((each for each in outcomes if each.result is result), key=lambda each: each.mutant)
        if found:
            parts.append(f"{heading}\n\n" + "\n".join(map(_described, found)) + "\n")
    for heading, groups in (("By package", _by_package(outcomes)), ("By kind", _by_kind(outcomes))):
        width = max(map(len, groups), default=0)
        rows = [f"{name:{width}}  {share(group)}" for name, group in sorted(groups.items())]
        parts.append(f"{heading}\n\n" + "\n".join(rows) + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "report.txt"
    target.write_text("\n".join(parts), encoding="utf-8")
    return target


def _described(outcome: Outcome) -> str:
    by = outcome.by or " ".join(outcome.tests) or "no tests"
    return f"{outcome.mutant}\n    {outcome.mutant.code}\n    {outcome.seconds:.0f} s: {by}"


def _by_package(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        package = Path(*Path(outcome.mutant.path).parent.parts[:2])
        groups.setdefault(str(package), []).append(outcome)
    return groups


def _by_kind(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.mutant.kind, []).append(outcome)
    return groups
