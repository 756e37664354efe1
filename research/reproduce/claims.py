"""Claims of a paper: its figures, ours, what can be compared, and the verdict; and the page that shows them.

A claim is one table or sentence of a paper. It has rows (configurations), figures (metrics), and checks:

    Order   one row is better than another row in a figure, as in the paper
    Level   our figure is as good as the paper's, or at most 5 % worse

A level is checked only if the figure can be compared with the paper's at all. The verdict follows from the checks:

    reproduced      all checks hold
    partly          some hold, or some could not be made
    not reproduced  none holds
    open            no check could be made
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Comparable = Literal["yes", "partly", "no"]
Verdict = Literal["reproduced", "partly", "not reproduced", "open"]
Numbers = Mapping[str, Mapping[str, float]]
"""Numbers by row and figure. A number that does not exist is left out."""
WORSE_SHARE: Final = 0.05
"""Share of the paper's figure by which ours may be worse and still reach the level."""
TITLE: Final = "# Reproduction of"
"""Begin of the first line of every page."""
_NONE: Final = "-"
_LEGEND: Final = (
    f"Verdicts: *reproduced*: all checks hold; *partly*: some hold, or some could not be made; *not reproduced*: none holds; "
    f"*open*: no check could be made. An order is checked as the paper states it. A level is checked where the figure can be "
    f"compared: ours may be {WORSE_SHARE:.0%} worse than the paper's."
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric of a claim.

    Attributes:
        name: name in `Numbers`.
        label: name and unit, as the page shows them.
        higher: whether larger numbers are better.
        comparable: whether our number can be compared with the paper's.
        why: what differs, in a few words.
    """

    name: str
    label: str
    higher: bool
    comparable: Comparable
    why: str

    def beats(self, first: float, second: float) -> bool:
        """Return whether a number is better than another."""
        return first > second if self.higher else first < second

    def reaches(self, ours: float, paper: float) -> bool:
        """Return whether our number is as good as the paper's, or at most WORSE_SHARE of it worse."""
        allowed = WORSE_SHARE * abs(paper)
        return ours >= paper - allowed if self.higher else ours <= paper + allowed


@dataclass(frozen=True, slots=True)
class Order:
    """Check: the row `better` is better than the row `worse` in a figure."""

    figure: str
    better: str
    worse: str


@dataclass(frozen=True, slots=True)
class Level:
    """Check: the row is as good in a figure as the paper's."""

    figure: str
    row: str


Check = Order | Level


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check in words, and whether it holds; None: it could not be made."""

    text: str
    holds: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of a paper.

    Attributes:
        name: name on the command line.
        source: table, figure or section of the paper.
        text: the claim, one sentence.
        rows: rows in the order of the page.
        figures: figures in the order of the page.
        paper: the paper's numbers.
        checks: what decides the verdict.
    """

    name: str
    source: str
    text: str
    rows: tuple[str, ...]
    figures: tuple[Figure, ...]
    paper: Numbers
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        figures = {figure.name for figure in self.figures}
        named = {row: set(numbers) for row, numbers in self.paper.items()}
        for check in self.checks:
            rows = (check.row,) if isinstance(check, Level) else (check.better, check.worse)
            if check.figure not in figures or not set(rows) <= set(self.rows):
                raise ValueError(f"claim {self.name!r}: {check} names a row or figure that the claim does not have")
            if isinstance(check, Level) and check.figure not in named.get(check.row, set()):
                raise ValueError(f"claim {self.name!r}: {check} has no number of the paper")
        if not set(named) <= set(self.rows) or not set().union(*named.values()) <= figures:
            raise ValueError(f"claim {self.name!r}: the paper's numbers name a row or figure that the claim does not have")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A claim with our numbers.

    Attributes:
        ours: our numbers.
        measured_on: clips or data that the numbers come from; empty: nothing was measured.
        missing: why a row or all rows have no numbers, one sentence each.
        quick: whether the numbers come from the small set of `--quick`.
    """

    claim: Claim
    ours: Numbers = field(default_factory=dict)
    measured_on: str = ""
    missing: tuple[str, ...] = ()
    quick: bool = False

    @property
    def checks(self) -> tuple[CheckResult, ...]:
        """The checks with their results."""
        return tuple(self._checked(check) for check in self.claim.checks)

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        outcomes = [result.holds for result in self.checks]
        decided = [holds for holds in outcomes if holds is not None]
        if not decided:
            return "open"
        if all(holds is True for holds in outcomes):
            return "reproduced"
        return "partly" if any(decided) else "not reproduced"

    def _checked(self, check: Check) -> CheckResult:
        figure = next(figure for figure in self.claim.figures if figure.name == check.figure)
        if isinstance(check, Order):
            first, second = self._number(check.better, figure), self._number(check.worse, figure)
            text = f"{figure.label}: {check.better} ({shown(first)}) is better than {check.worse} ({shown(second)})"
            checkable = math.isfinite(first) and math.isfinite(second)
            return CheckResult(text, figure.beats(first, second) if checkable else None)
        ours, paper = self._number(check.row, figure), self.claim.paper[check.row][check.figure]
        text = f"{figure.label}: {check.row} ({shown(ours)}) reaches the paper's {shown(paper)}"
        checkable = math.isfinite(ours) and figure.comparable != "no"
        return CheckResult(text, figure.reaches(ours, paper) if checkable else None)

    def _number(self, row: str, figure: Figure) -> float:
        return self.ours.get(row, {}).get(figure.name, math.nan)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Part of a paper's evaluation that is not repeated, with the reason."""

    part: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page of a reproduction.

    Attributes:
        paper: name of the paper's method.
        title: authors and title of the paper.
        outcomes: the claims.
        left_out: what is not repeated.
    """

    paper: str
    title: str
    outcomes: Sequence[Outcome]
    left_out: Sequence[LeftOut]

    def document(self) -> dict[str, Any]:
        """Return the page as dictionaries, lists, numbers and text."""
        return {
            "paper": self.paper,
            "claims": [_claim_document(outcome) for outcome in self.outcomes],
            "left_out": [{"part": each.part, "reason": each.reason} for each in self.left_out],
        }

    def markdown(self) -> str:
        """Return the page as Markdown."""
        return "\n".join((*self._lines(), ""))

    def _lines(self) -> Iterator[str]:
        yield from (f"{TITLE} `{self.paper}`", "", f"{self.title}.", "", _LEGEND)
        yield from ("", "| claim | source | verdict |", "|---|---|---|")
        for outcome in self.outcomes:
            yield f"| {outcome.claim.name}: {outcome.claim.text} | {outcome.claim.source} | **{outcome.verdict}** |"
        for outcome in self.outcomes:
            yield from self._section(outcome)
        yield from ("", "## Left out", "", *(f"* {each.part}: {each.reason}" for each in self.left_out))

    def _section(self, outcome: Outcome) -> Iterator[str]:
        claim = outcome.claim
        yield from ("", f"## {claim.name} ({claim.source})", "", claim.text, "")
        yield f"    {self._command(outcome)}"
        rows = list(_table_rows(outcome))
        if rows:
            yield from ("", "| | figure | paper | ours | comparable |", "|---|---|---|---|---|", *rows)
        small = " With `--quick`: a small set, whose numbers say little." if outcome.quick else ""
        yield from ("", f"Measured on: {outcome.measured_on}.{small}" if outcome.measured_on else "Not measured yet.")
        yield from ("", f"Verdict: **{outcome.verdict}**.", "")
        yield from (f"* {_RESULTS[result.holds]}: {result.text}" for result in outcome.checks)
        yield from (f"* not measured: {reason}" for reason in outcome.missing)

    def _command(self, outcome: Outcome) -> str:
        quick = " --quick" if outcome.quick else ""
        return f"dubstage reproduce {self.paper} CLIPS --data SET --claim {outcome.claim.name}{quick} --output FOLDER"


def _table_rows(outcome: Outcome) -> Iterator[str]:
    """Yield a row for each number that the paper or we have."""
    claim = outcome.claim
    for row in claim.rows:
        for figure in claim.figures:
            paper, ours = (numbers.get(row, {}).get(figure.name, math.nan) for numbers in (claim.paper, outcome.ours))
            if math.isfinite(paper) or math.isfinite(ours):
                yield f"| {row} | {figure.label} | {shown(paper)} | {shown(ours)} | {figure.comparable}: {figure.why} |"


_RESULTS: Final = {True: "holds", False: "does not hold", None: "could not be checked"}


def shown(number: float) -> str:
    """Return a number with four significant digits, without an exponent; `-` for NaN."""
    if not math.isfinite(number):
        return _NONE
    digits = 4 if number == 0.0 else max(0, 3 - math.floor(math.log10(abs(number))))
    return f"{number:.{min(digits, 6)}f}".rstrip("0").rstrip(".") if digits else f"{number:.0f}"


def _claim_document(outcome: Outcome) -> dict[str, Any]:
    claim = outcome.claim
    return {
        "name": claim.name,
        "source": claim.source,
        "text": claim.text,
        "comparable": {figure.name: [figure.comparable, figure.why] for figure in claim.figures},
        "paper": {row: dict(numbers) for row, numbers in claim.paper.items()},
        "ours": {row: _finite(numbers) for row, numbers in outcome.ours.items()},
        "measured_on": outcome.measured_on,
        "quick": outcome.quick,
        "missing": list(outcome.missing),
        "checks": [{"text": result.text, "holds": result.holds} for result in outcome.checks],
        "verdict": outcome.verdict,
    }


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 6) for name, number in numbers.items() if math.isfinite(number)}
